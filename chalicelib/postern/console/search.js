// The search field's words: qualifiers as `source:stripe`, and what stands without one is an id.

import {moment} from "./format.js";

export const QUALIFIERS = {
  source: "stripe",
  type: "invoice.paid, or invoice.*",
  status: "processed, stale, failed or dead",
  since: "2h, 7d or 2026-11-29T10:00Z",
  until: "1h",
  payload: '{"customer":"cus_1"}',
  error: "a part of the error’s text",
  attempts: "tries at least",
  issue: "an issue’s id",
  id: "an event’s id, or the provider’s",
};
export const STATUSES = ["processed", "stale", "failed", "dead"];

// The others mean one thing.
const SEVERAL = new Set(["status", "id"]);

const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/i;
export const isUuid = (text) => UUID.test(text);

// {name, value, text, problem} of each word, in order.
export const words = (text) => {
  const found = [];
  let at = 0;
  while (at < text.length) {
    if (/\s/.test(text[at])) {
      at += 1;
      continue;
    }
    const start = at;
    const named = /^([a-z]+):/.exec(text.slice(at));
    const name = named && Object.hasOwn(QUALIFIERS, named[1]) ? named[1] : null;
    if (name) at += name.length + 1;
    let value;
    if (text[at] === '"' && name !== "payload") [value, at] = quoted(text, at);
    else if (name === "payload") [value, at] = object(text, at);
    else {
      const end = /\s/.exec(text.slice(at));
      const to = end ? at + end.index : text.length;
      [value, at] = [text.slice(at, to), to];
    }
    found.push({name: name ?? "id", value, text: text.slice(start, at)});
  }
  return found;
};

const quoted = (text, from) => {
  let at = from + 1, value = "";
  for (; at < text.length && text[at] !== '"'; at += 1) {
    if (text[at] === "\\" && at + 1 < text.length) at += 1;
    value += text[at];
  }
  return [value, at + 1];
};

const object = (text, from) => {
  let depth = 0, inText = false, at = from;
  for (; at < text.length; at += 1) {
    const each = text[at];
    if (inText) {
      if (each === "\\") at += 1;
      else if (each === '"') inText = false;
    } else if (each === '"') inText = true;
    else if ("{[".includes(each)) depth += 1;
    else if ("}]".includes(each)) depth -= 1;
    else if (/\s/.test(each) && depth <= 0) break;
    if (depth === 0 && "}]".includes(each) && !inText) {
      at += 1;
      break;
    }
  }
  return [text.slice(from, at), at];
};

// The API's filters for these words, and what of them says nothing.
export const filtersOf = (text) => {
  const filters = {}, problems = [];
  const once = new Set();
  for (const {name, value} of words(text)) {
    const problem = once.has(name) ? `“${name}:” can be said once.` : take(filters, name, value);
    if (problem) problems.push(problem);
    if (!SEVERAL.has(name)) once.add(name);
  }
  return {filters, problems};
};

const take = (filters, name, value) => {
  if (value === "") return `“${name}:” needs a value, such as ${QUALIFIERS[name]}.`;
  switch (name) {
    case "status": {
      const several = value.split(",");
      const unknown = several.find((each) => !STATUSES.includes(each));
      if (unknown !== undefined) return `“${unknown}” is no status: processed, stale, failed or dead.`;
      filters.status = [...(filters.status ?? []), ...several];
      return null;
    }
    case "since":
    case "until":
      filters[name] = moment(value);
      return filters[name] ? null : `“${value}” is no time: 2h, 7d, or 2026-11-29T10:00Z.`;
    case "payload":
      try {
        JSON.parse(value);
      } catch {
        return `The payload’s part is no JSON: payload:${QUALIFIERS.payload}`;
      }
      // As it was written: a large number would not survive being read.
      filters.contains = value;
      return null;
    case "attempts":
      if (!/^[1-9]\d{0,8}$/.test(value)) return "“attempts:” needs a number.";
      filters.attempts = value;
      return null;
    case "id":
      if (isUuid(value)) filters.ids = [...(filters.ids ?? []), value.toLowerCase()];
      else filters.key = value;
      return null;
    default:
      filters[name] = value;
      return null;
  }
};

// A qualifier as one types it.
export const written = (name, value) => {
  const bare = name === "payload" || !/[\s"]/.test(value);
  return `${name}:${bare ? value : `"${value.replace(/["\\]/g, "\\$&")}"`}`;
};

// The text with this qualifier set anew, or without it.
export const withWord = (text, name, value) => {
  const others = words(text).filter((word) => word.name !== name).map((word) => word.text);
  return [...others, ...(value === null ? [] : [written(name, value)])].join(" ");
};
