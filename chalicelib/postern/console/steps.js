// What goes on in steps that whoever watches has done: replays, redrives, and comparisons with providers.

import {useEffect, useState} from "./html.js";
import {post} from "./api.js";

const LONGEST_PAUSE = 30_000;

// Those that were begun in this console go on by themselves; another waits to be told.
const begun = new Set();
export const goesOnByItself = (id) => begun.add(id);

// Whether it rests, and how to change that. Whoever comes back to it finds it as it was left.
export const useRest = (id) => {
  const [rests, setResting] = useState(!begun.has(id));
  return [rests, (rest) => {
    if (rest) begun.delete(id);
    else begun.add(id);
    setResting(rest);
  }];
};

// Takes step after step while `goesOn`. `answered` gets each answer, and says in how many milliseconds the next is due;
// `failed` gets what went wrong: what passes is tried again, anything else ends it.
export const useSteps = (path, goesOn, {first, answered, failed}) => useEffect(() => {
  if (!goesOn) return undefined;
  let over = false, timer = null, pause = first;
  const advance = async () => {
    try {
      const answer = await post(path);
      if (over) return;
      pause = answered(answer);
    } catch (error) {
      if (over) return;
      failed(error);
      if (!error.passes) return;
      pause = Math.min(pause * 2, LONGEST_PAUSE);
    }
    timer = setTimeout(advance, pause);
  };
  timer = setTimeout(advance, first);
  return () => {
    over = true;
    clearTimeout(timer);
  };
}, [goesOn, path]);
