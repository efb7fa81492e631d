// Values as people read them. Nothing here makes markup: what comes from senders is text, and stays text.

const MINUTE = 60_000, HOUR = 60 * MINUTE, DAY = 24 * HOUR;

// What would steer the text around it, or cannot be seen, by its code point.
const UNSEEN = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]/g;
export const plain = (text) =>
  String(text ?? "").replace(UNSEEN, (each) => `‹U+${each.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}›`);

export const short = (text, most = 120) => {
  const all = String(text ?? "");
  return plain(all.length > most ? `${all.slice(0, most - 1)}…` : all);
};

export const number = (value) => Number(value ?? 0).toLocaleString("en");

export const count = (value, one, many = `${one}s`) => `${number(value)} ${value === 1 ? one : many}`;

export const size = (bytes) => {
  if (bytes < 1000) return `${bytes} B`;
  const unit = bytes < 1e6 ? ["kB", 1e3] : bytes < 1e9 ? ["MB", 1e6] : ["GB", 1e9];
  return `${(bytes / unit[1]).toFixed(bytes < 10 * unit[1] ? 1 : 0)} ${unit[0]}`;
};

export const seconds = (value) => {
  if (value === null || value === undefined) return "–";
  if (value < 1) return `${Math.round(value * 1000)} ms`;
  if (value < 120) return `${value.toFixed(value < 10 ? 1 : 0)} s`;
  return value < 7200 ? `${Math.round(value / 60)} min` : `${Math.round(value / 3600)} h`;
};

export const ago = (at, now = Date.now()) => {
  const passed = now - Date.parse(at);
  if (passed < -5000) return "in the future";
  if (passed < 5000) return "just now";
  if (passed < MINUTE) return `${Math.floor(passed / 1000)} s ago`;
  if (passed < HOUR) return `${Math.floor(passed / MINUTE)} min ago`;
  if (passed < 2 * DAY) return `${Math.floor(passed / HOUR)} h ago`;
  return `${Math.floor(passed / DAY)} days ago`;
};

const pad = (value) => String(value).padStart(2, "0");

export const utc = (at) => {
  const text = new Date(at).toISOString();
  return `${text.slice(0, 10)} ${text.slice(11, 19)} UTC`;
};

export const local = (at) => {
  const date = new Date(at);
  const day = `${date.getFullYear()}-${pad(date.getMonth() + 1)}-${pad(date.getDate())}`;
  return `${day} ${pad(date.getHours())}:${pad(date.getMinutes())}:${pad(date.getSeconds())}`;
};

// When an event of this id was received (UUIDv7).
export const momentOf = (id) => new Date(parseInt(id.replace("-", "").slice(0, 12), 16)).toISOString();

export const SPANS = {s: 1000, m: MINUTE, h: HOUR, d: DAY, w: 7 * DAY};

// "2h", "2026-11-29" or "2026-11-29T10:00Z" as a moment; null for what is none.
export const moment = (text, now = Date.now()) => {
  const span = /^(\d{1,5})([smhdw])$/.exec(text);
  if (span) return new Date(now - span[1] * SPANS[span[2]]).toISOString();
  if (!/^\d{4}-\d\d-\d\d/.test(text)) return null;
  const at = new Date(/[zZ]|[+-]\d\d:?\d\d$/.test(text) || text.length <= 10 ? text : `${text}Z`);
  return Number.isNaN(at.getTime()) ? null : at.toISOString();
};
