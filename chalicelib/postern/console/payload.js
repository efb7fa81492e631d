// A body as it came, made readable without being read: every digit of a number stays, and nothing runs.

import {html, useMemo, useState} from "./html.js";
import {plain, size} from "./format.js";
import {Copy} from "./ui.js";

const MOST_SHOWN = 200_000;
const FIRST_LINES = 400;
const DEEPEST = 60;
// JSON has four; what is none may have any number.
const MOST_IN_A_LINE = 200;

const TOKEN = /"(?:[^"\\]|\\.)*"|[{}[\],:]|[^\s{}[\],:"]+/gy;
const SPACE = /\s*/y;

// The text as lines of [depth, [kind, text]…]; null where it is not JSON's to lay out.
export const lines = (text) => {
  const found = [];
  let line = [], depth = 0, at = 0;
  const end = () => {
    if (line.length) found.push([Math.min(depth, DEEPEST), line]);
    line = [];
  };
  while (at < text.length) {
    SPACE.lastIndex = at;
    SPACE.exec(text);
    at = SPACE.lastIndex;
    if (at >= text.length) break;
    TOKEN.lastIndex = at;
    const token = TOKEN.exec(text)?.[0];
    if (token === undefined) {
      // Cut off in the middle of a text.
      line.push(["", text.slice(at)]);
      break;
    }
    at += token.length;
    if (token === "{" || token === "[") {
      line.push(["", token]);
      end();
      depth += 1;
    } else if (token === "}" || token === "]") {
      end();
      depth = Math.max(0, depth - 1);
      line.push(["", token]);
    } else if (token === ",") {
      line.push(["", token]);
      end();
    } else if (line.length > MOST_IN_A_LINE) {
      end();
      line.push(["", token]);
    } else if (token === ":") line.push(["", ": "]);
    else {
      SPACE.lastIndex = at;
      SPACE.exec(text);
      const isName = token[0] === '"' && text[SPACE.lastIndex] === ":";
      line.push([isName ? "name" : token[0] === '"' ? "text" : "value", token]);
    }
  }
  end();
  return found;
};

const isText = (bytes) => {
  try {
    return [new TextDecoder("utf-8", {fatal: true}).decode(bytes), true];
  } catch {
    return [new TextDecoder().decode(bytes), false];
  }
};

const hex = (bytes) => {
  const rows = [];
  for (let at = 0; at < Math.min(bytes.length, 4096); at += 16) {
    const row = [...bytes.slice(at, at + 16)];
    const digits = row.map((each) => each.toString(16).padStart(2, "0")).join(" ");
    const seen = row.map((each) => (each > 31 && each < 127 ? String.fromCharCode(each) : "·")).join("");
    rows.push(`${at.toString(16).padStart(6, "0")}  ${digits.padEnd(47)}  ${seen}`);
  }
  return rows.join("\n");
};

export const Payload = ({bytes, name}) => {
  const [[text, isWhole], laidOut] = useMemo(() => {
    const decoded = isText(bytes);
    const starts = /^\s*[{["\d-]/.test(decoded[0]);
    return [decoded, starts && decoded[1] ? lines(decoded[0].slice(0, MOST_SHOWN)) : null];
  }, [bytes]);
  const [as, setAs] = useState(null);
  const [most, setMost] = useState(FIRST_LINES);
  const way = as ?? (laidOut ? "read" : isWhole ? "raw" : "hex");
  const ways = [...(laidOut ? [["read", "Readable"]] : []), ["raw", "As it came"], ["hex", "Bytes"]];
  const cut = text.length > MOST_SHOWN;
  return html`<section class="payload" aria-label=${name}>
    <div class="row">
      <h2>${name}</h2><span class="muted">${size(bytes.length)}${isWhole ? "" : ", not UTF-8"}</span>
      <span class="tabs">${ways.map(([key, label]) => html`<button type="button" aria-pressed=${way === key}
        onClick=${() => setAs(key)}>${label}</button>`)}</span>
      <${Copy} text=${text}>Copy<//>
      <button type="button" class="quiet" onClick=${() => download(bytes, `${name.toLowerCase()}.bin`)}>Download bytes</button>
    </div>
    ${way === "hex" && html`<pre tabindex="0">${hex(bytes)}${bytes.length > 4096 ? "\n…" : ""}</pre>`}
    ${way === "raw" && html`<pre tabindex="0" class="wraps">${plain(text.slice(0, MOST_SHOWN))}${cut ? "…" : ""}</pre>`}
    ${way === "read" && html`<pre tabindex="0">${laidOut.slice(0, most).map(
      ([depth, parts]) => html`<span class="code-line">${"  ".repeat(depth)}${parts.map(([kind, part]) =>
        kind ? html`<span class=${`json-${kind}`}>${plain(part)}</span>` : plain(part))}${"\n"}</span>`)}</pre>
      ${laidOut.length > most && html`<p><button type="button" onClick=${() => setMost(most * 5)}>
        Show more of its ${laidOut.length.toLocaleString("en")} lines</button></p>`}`}
    ${cut && html`<p class="muted">The beginning is shown; the download has all of it.</p>`}
  </section>`;
};

const download = (bytes, name) => {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([bytes], {type: "application/octet-stream"}));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
};

export const Headers = ({of}) => html`<h2>Headers</h2>
  <div class="table"><table class="headers"><tbody>${Object.entries(of ?? {}).map(([name, value]) => html`<tr>
    <th scope="row"><code>${plain(name)}</code></th><td><code><bdi>${plain(value)}</bdi></code></td></tr>`)}</tbody></table></div>`;
