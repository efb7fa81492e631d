// Preact with its hooks, and htm in the place of a compiler.

import {h} from "./preact.js";
import htm from "./htm.js";

export {createContext, render} from "./preact.js";
export {useCallback, useContext, useEffect, useErrorBoundary, useMemo, useRef, useState} from "./hooks.js";

export const html = htm.bind(h);
