// What the pages ask the API (docs/api.md), and how they keep what it answered.

import {useCallback, useEffect, useRef, useState} from "./html.js";

// The stage's own part of the path goes before ours: https://….amazonaws.com/api/console.
export const base = location.pathname.replace(/\/console\/?$/, "");

const ANSWER_WITHIN = 25_000;
const RETRY_FIRST = 2_000;
const RETRY_MOST = 30_000;

let csrf = null;

class ApiError extends Error {
  constructor(status, code, message, details) {
    super(message);
    Object.assign(this, {status, code, details});
  }

  // Whether it may go away by itself. What took too long does not, asked again.
  get passes() {
    if (this.code === "too_slow") return false;
    return this.status === 0 || this.status === 429 || this.status >= 500;
  }
}

const query = (given) => {
  const pairs = new URLSearchParams();
  for (const [name, value] of Object.entries(given)) {
    if (value === null || value === undefined || value === "") continue;
    if (Array.isArray(value)) value.forEach((each) => pairs.append(name, each));
    else pairs.append(name, typeof value === "object" ? JSON.stringify(value) : String(value));
  }
  return pairs.size ? `?${pairs}` : "";
};

// JSON of the arguments. What a payload is to contain stays as it was written, with every digit.
const bodyOf = ({contains, ...others}) => {
  const text = JSON.stringify(others);
  return contains ? `${text.slice(0, -1)}${text === "{}" ? "" : ","}"contains":${contains}}` : text;
};

export const call = async (method, path, given = {}, signal = null) => {
  try {
    return await called(method, path, given, signal);
  } catch (error) {
    if (error.code !== "csrf") throw error;
    // Somebody signed in anew in another tab.
    await who();
    return called(method, path, given, signal);
  }
};

const called = async (method, path, given, signal) => {
  const asks = method === "GET";
  const headers = asks ? {} : {"Content-Type": "application/json", ...(csrf && {"Postern-Csrf": csrf})};
  const late = AbortSignal.timeout(ANSWER_WITHIN);
  let answer, found;
  try {
    answer = await fetch(`${base}/api/${path}${asks ? query(given) : ""}`, {
      method,
      headers,
      body: asks || method === "DELETE" ? undefined : bodyOf(given),
      signal: signal ? AbortSignal.any([signal, late]) : late,
    });
    found = await answer.json();
  } catch (error) {
    if (signal?.aborted) throw error;
    const why = late.aborted ? "There was no answer in time." : "Postern does not answer.";
    throw new ApiError(answer?.status >= 400 ? answer.status : 0, "unreachable", why, {});
  }
  if (answer.ok) return found;
  if (answer.status === 401 && path !== "session") dispatchEvent(new Event("signed-out"));
  throw new ApiError(answer.status, found.error, found.message, found.details ?? {});
};

export const get = (path, given, signal) => call("GET", path, given, signal);
export const post = (path, given) => call("POST", path, given);

const welcome = (caller) => {
  csrf = caller.csrf;
  return caller;
};

export const who = async () => welcome(await get("session"));
export const signIn = async (token) => welcome(await post("session", {token}));
export const signOut = async () => {
  await call("DELETE", "session");
  csrf = null;
};

// Asks, and asks again every `every` milliseconds while the page is looked at. What was answered stays when the next
// answer fails (`stale` says so), and the question is repeated, less and less often. Questions of one name (`as`) are one
// to whoever looks, though a time in them goes on: what was answered stays until the next is.
export const useQuery = (path, given = {}, {every = 0, skip = false, as = null} = {}) => {
  const [state, setState] = useState({data: null, error: null, stale: false, at: null});
  const key = skip ? null : path + query(given);
  const name = skip ? null : (as ?? key);
  const asked = useRef({});
  const ask = useCallback(async () => {
    const mine = asked.current;
    if (key === null || mine.ask !== ask) return; // the page asks something else by now, or was left
    clearTimeout(mine.timer);
    mine.control?.abort();
    const control = (mine.control = new AbortController());
    let pause = every;
    try {
      const data = await get(path, given, control.signal);
      mine.failures = 0;
      setState({data, error: null, stale: false, at: Date.now(), name});
    } catch (error) {
      if (control.signal.aborted) return;
      mine.failures = (mine.failures ?? 0) + 1;
      if (error.passes) pause = Math.min(RETRY_FIRST * 2 ** (mine.failures - 1), RETRY_MOST);
      else pause = 0;
      setState((before) =>
        before.name === name && before.data && error.passes
          ? {...before, error, stale: true}
          : {data: null, error, stale: false, at: null, name});
    }
    if (pause && !control.signal.aborted) {
      mine.timer = setTimeout(() => (document.hidden ? (mine.due = true) : ask()), pause);
    }
  }, [key, every]);
  useEffect(() => {
    const mine = asked.current;
    mine.ask = ask;
    ask();
    const seen = () => {
      if (!document.hidden && mine.due) {
        mine.due = false;
        ask();
      }
    };
    document.addEventListener("visibilitychange", seen);
    addEventListener("refresh", ask);
    return () => {
      document.removeEventListener("visibilitychange", seen);
      removeEventListener("refresh", ask);
      clearTimeout(mine.timer);
      mine.control?.abort();
      mine.ask = null;
    };
  }, [ask]);
  const current = state.name === name;
  // Whoever kept it from before asks what is asked now.
  const refresh = useCallback(() => asked.current.ask?.(), []);
  return {...state, data: current ? state.data : null, error: current ? state.error : null, refresh};
};

// A list that comes in pages: what was asked for so far, and how to ask for more.
export const usePages = (path, name, given, options) => {
  const [further, setFurther] = useState({of: null, rows: [], next: null, busy: false, error: null});
  const key = path + query(given);
  const present = useRef(key);
  present.current = key;
  // With further pages on show the first one stays as it is: between two that moved, rows would be missing.
  const isPaged = further.of === key && further.rows.length > 0;
  const first = useQuery(path, given, {...options, every: isPaged ? 0 : options?.every});
  const mine = further.of === key ? further : {rows: [], next: undefined, busy: false, error: null};
  const rows = [...(first.data?.[name] ?? []), ...mine.rows];
  const next = mine.next === undefined ? first.data?.next : mine.next;
  const more = async () => {
    setFurther({...mine, of: key, next, busy: true, error: null});
    try {
      const page = await get(path, {...given, ...next});
      if (present.current === key) setFurther({of: key, rows: [...mine.rows, ...page[name]], next: page.next, busy: false, error: null});
    } catch (error) {
      if (present.current === key) setFurther({...mine, of: key, next, busy: false, error});
    }
  };
  return {...first, rows, next, more, moreBusy: mine.busy, moreError: mine.error};
};

export const bytesOf = (base64) => Uint8Array.from(atob(base64), (each) => each.charCodeAt(0));
