// The pieces that pages are made of.

import {createContext, html, useContext, useEffect, useRef, useState} from "./html.js";
import {ago, count, local, number, plain, utc} from "./format.js";

export const Session = createContext(null);
export const useMayOperate = () => useContext(Session)?.role === "operate";

// --- Where one is: the part of the address behind "#".

const decoded = (text) => {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
};

const place = () => {
  const [path, query] = location.hash.replace(/^#\/?/, "").split(/\?(.*)/s);
  return {steps: path.split("/").filter(Boolean).map(decoded), query: new URLSearchParams(query ?? "")};
};

export const usePlace = () => {
  const [at, setAt] = useState(place);
  useEffect(() => {
    const moved = () => setAt(place());
    moved(); // it may have changed since the page was drawn
    addEventListener("hashchange", moved);
    return () => removeEventListener("hashchange", moved);
  }, []);
  return at;
};

export const hrefTo = (steps, query = {}) => {
  const given = Object.entries(query).filter(([, value]) => value !== null && value !== "" && value !== undefined);
  const path = [steps].flat().map(encodeURIComponent).join("/");
  return `#/${path}${given.length ? `?${new URLSearchParams(given)}` : ""}`;
};

// Without a step "back" for each letter that was typed.
export const go = (href, {replace = false} = {}) => {
  if (replace) {
    history.replaceState(null, "", href);
    dispatchEvent(new HashChangeEvent("hashchange"));
  } else location.hash = href;
};

// --- What is remembered of a person's wishes, here and nowhere else.

export const remembered = (name, usual) => {
  try {
    return localStorage.getItem(`postern-${name}`) ?? usual;
  } catch {
    return usual;
  }
};

export const remember = (name, value) => {
  try {
    localStorage.setItem(`postern-${name}`, value);
  } catch {
    // A browser that keeps nothing is asked again the next time.
  }
};

// --- Small things

let zone = remembered("times", "ago");
const TIMES = ["ago", "utc", "local"];
export const timesAre = () => zone;
export const nextTimes = () => {
  zone = TIMES[(TIMES.indexOf(zone) + 1) % TIMES.length];
  remember("times", zone);
  dispatchEvent(new Event("times"));
};

const useTick = () => {
  const [, setTick] = useState(0);
  useEffect(() => {
    const again = () => setTick((tick) => tick + 1);
    const timer = setInterval(again, 5000);
    addEventListener("times", again);
    return () => {
      clearInterval(timer);
      removeEventListener("times", again);
    };
  }, []);
};

// Relative, with the exact one at hand: a click copies it.
export const Time = ({at, exact = false}) => {
  useTick();
  if (!at) return html`<span class="muted">–</span>`;
  const as = exact ? "utc" : zone;
  const text = as === "ago" ? ago(at) : as === "utc" ? utc(at) : local(at);
  return html`<button class="time" type="button" title=${`${utc(at)}\n${local(at)} here\nClick to copy`}
    onClick=${(event) => {
      event.stopPropagation();
      copy(at);
    }}><time datetime=${at}>${text}</time></button>`;
};

const copy = async (text) => {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    // Without https there is no clipboard to write to but by the old way.
    const field = document.createElement("textarea");
    field.value = text;
    document.body.append(field);
    field.select();
    document.execCommand("copy");
    field.remove();
  }
  say("Copied.");
};

export const Copy = ({text, children = "Copy", title, disabled = false}) =>
  html`<button type="button" class="quiet" title=${title} disabled=${disabled} onClick=${() => copy(typeof text === "function" ? text() : text)}>
    ${children}</button>`;

const MARKS = {processed: "✓", stale: "≈", failed: "!", dead: "✕", open: "!", acknowledged: "…", resolved: "✓"};
export const Badge = ({kind, children}) =>
  html`<span class=${`badge is-${kind}`}><span aria-hidden="true">${MARKS[kind] ?? ""}</span> ${children ?? kind}</span>`;

export const Id = ({id, href}) =>
  html`<a class="id" href=${href ?? hrefTo(["events", id])} title=${id}>${id.slice(0, 8)}…${id.slice(-4)}</a>`;

export const Empty = ({title, children}) => html`<div class="empty"><h2>${title}</h2>${children}</div>`;

export const Problem = ({error, stale, at, retry}) =>
  error &&
  html`<div class="problem" role="alert">
    <strong>${stale ? "Not up to date." : "That did not work."}</strong> ${plain(error.message)}
    ${Object.entries(error.details ?? {}).map(([name, what]) => html` <code>${name}</code>: ${plain([what].flat().join(" "))}`)}
    ${stale && html` What you see is of <${Time} at=${new Date(at).toISOString()} />; it is asked for again by itself.`}
    ${retry && html` <button type="button" onClick=${retry}>Try again</button>`}
  </div>`;

// A page's data: what there is, or why there is none, without anything jumping about.
export const Loaded = ({of, children, lines = 6, name = null}) => {
  if (of.data) {
    return html`<div class=${of.stale ? "stale" : ""}>
      <${Problem} error=${of.error} stale=${of.stale} at=${of.at} retry=${of.refresh} />${children(of.data)}</div>`;
  }
  const heading = name && html`<h1>${name}</h1>`;
  if (of.error) return html`${heading}<${Problem} error=${of.error} retry=${of.error.passes ? of.refresh : null} />`;
  return html`${heading}<div class="waiting" aria-busy="true" aria-label="Loading">
    ${Array.from({length: lines}, () => html`<div class="line"></div>`)}</div>`;
};

// --- What was done, said for a moment, to screen readers as well

export const say = (text, kind = "done") => dispatchEvent(new CustomEvent("said", {detail: {text, kind}}));

export const Said = () => {
  const [said, setSaid] = useState(null);
  useEffect(() => {
    let timer;
    const hear = ({detail}) => {
      setSaid(detail);
      clearTimeout(timer);
      timer = setTimeout(() => setSaid(null), detail.kind === "wrong" ? 10_000 : 4000);
    };
    addEventListener("said", hear);
    return () => removeEventListener("said", hear);
  }, []);
  return html`<div class="said" role="status" aria-live="polite">
    ${said && html`<div class=${`is-${said.kind}`}>${plain(said.text)}</div>`}</div>`;
};

// Does something once, whatever is clicked meanwhile; what goes wrong is said.
export const useAction = (work) => {
  const [busy, setBusy] = useState(false);
  const act = async (...given) => {
    if (busy) return;
    setBusy(true);
    try {
      await work(...given);
    } catch (error) {
      const details = Object.values(error.details ?? {}).flat().join(" ");
      say(`${error.message}${details ? ` ${details}` : ""}`, "wrong");
    } finally {
      setBusy(false);
    }
  };
  return [act, busy];
};

export const Action = ({work, children, kind = "", disabled = false, title}) => {
  const mayOperate = useMayOperate();
  const [act, busy] = useAction(work);
  const why = mayOperate ? title : "Your token may look, and change nothing.";
  return html`<button type="button" class=${kind} disabled=${disabled || busy || !mayOperate} title=${why}
    aria-busy=${busy} onClick=${() => act()}>${children}</button>`;
};

// --- Dialogs. `ask` is answered with true or false.

export const ask = (about) => new Promise((answer) => dispatchEvent(new CustomEvent("ask", {detail: {...about, answer}})));

export const Asked = () => {
  const [about, setAbout] = useState(null);
  const [typed, setTyped] = useState("");
  const dialog = useRef(null);
  useEffect(() => {
    const hear = ({detail}) => {
      setTyped("");
      setAbout(detail);
    };
    addEventListener("ask", hear);
    return () => removeEventListener("ask", hear);
  }, []);
  useEffect(() => {
    if (!about) return undefined;
    if (!dialog.current.open) dialog.current.showModal();
    // What is asked belongs to the page that it was asked on.
    const left = () => {
      about.answer(false);
      setAbout(null);
    };
    addEventListener("hashchange", left);
    return () => removeEventListener("hashchange", left);
  }, [about]);
  if (!about) return null;
  const end = (answer) => {
    dialog.current.close();
    about.answer(answer);
    setAbout(null);
  };
  const isSure = !about.type || typed.trim() === String(about.type);
  return html`<dialog ref=${dialog} aria-labelledby="asked" onCancel=${(event) => {
    event.preventDefault();
    end(false);
  }}>
    <form onSubmit=${(event) => {
      event.preventDefault();
      if (isSure) end(about.note ? typed.trim() : true);
    }}>
      <h2 id="asked">${about.title}</h2>
      ${about.text && html`<p>${about.text}</p>`}
      ${about.type && html`<label>Type <strong>${about.type}</strong> to go on
        <input autofocus autocomplete="off" value=${typed} onInput=${(event) => setTyped(event.target.value)} /></label>`}
      ${about.note && html`<label>${about.note}
        <input autofocus required maxlength="500" value=${typed} onInput=${(event) => setTyped(event.target.value)} /></label>`}
      <div class="row">
        <button type="submit" class=${about.dangerous ? "danger" : "main"} disabled=${!isSure}>${about.yes}</button>
        <button type="button" autofocus=${about.dangerous && !about.type && !about.note} onClick=${() => end(false)}>Cancel</button>
      </div>
    </form>
  </dialog>`;
};

// --- Tables: rows that keys walk through

export const Table = ({columns, rows, open, caption, keyOf = (row) => row.id, chosen, setChosen}) => {
  const choose = (row, isChosen) => {
    const next = new Map(chosen);
    if (isChosen) next.set(keyOf(row), row);
    else next.delete(keyOf(row));
    setChosen(next);
  };
  const all = chosen && rows.length > 0 && rows.every((row) => chosen.has(keyOf(row)));
  return html`<div class="table" tabindex="-1"><table>
    <caption class="unseen">${caption}</caption>
    <thead><tr>
      ${chosen && html`<th class="choice"><input type="checkbox" aria-label="Choose all shown" checked=${all}
        onChange=${(event) =>
          setChosen(event.target.checked ? new Map(rows.map((row) => [keyOf(row), row])) : new Map())} /></th>`}
      ${columns.map((column) => html`<th scope="col" class=${column.class ?? ""}>${column.name}</th>`)}
    </tr></thead>
    <tbody>${rows.map(
      (row) => html`<tr key=${keyOf(row)} class=${open ? "opens" : ""} tabindex=${open ? 0 : undefined}
        onClick=${(event) => {
          if (!open || event.target.closest("a, button, input, label") || getSelection().toString()) return;
          go(open(row));
        }}
        onKeyDown=${(event) => {
          if (open && event.key === "Enter" && event.target === event.currentTarget) go(open(row));
        }}>
        ${chosen && html`<td class="choice"><input type="checkbox" aria-label=${`Choose ${keyOf(row)}`}
          checked=${chosen.has(keyOf(row))} onChange=${(event) => choose(row, event.target.checked)} /></td>`}
        ${columns.map((column) => html`<td class=${column.class ?? ""} data-name=${column.name}>${column.of(row)}</td>`)}
      </tr>`)}</tbody>
  </table></div>`;
};

export const More = ({of}) => html`
  ${of.next && html`<p class="row"><button type="button" disabled=${of.moreBusy} onClick=${of.more}>
    ${of.moreBusy ? "Loading …" : "Show more"}</button></p>`}
  <${Problem} error=${of.moreError} retry=${of.more} />`;

// A choice among few, which stands in the address.
export const Tabs = ({name, value, of, label}) => {
  const {steps, query} = usePlace();
  return html`<nav class="tabs" aria-label=${label}>
    ${of.map(([key, text]) => html`<a href=${hrefTo(steps, {...Object.fromEntries(query), [name]: key})}
      aria-current=${key === value ? "true" : undefined}>${text}</a>`)}</nav>`;
};

// --- Charts: columns of what came in each step of time, and what became of it

export const KINDS = [
  ["processed", "processed"],
  ["stale", "stale"],
  ["duplicates", "repeated"],
  ["rejected", "refused"],
  ["failed", "failed"],
  ["dead", "dead"],
];

const STEP = {minute: 60_000, hour: 3_600_000, day: 86_400_000};

const filled = ({since, until, step, points}) => {
  const by = new Map(points.map((point) => [Date.parse(point.at), point]));
  const all = [];
  for (let at = Date.parse(since); at < Date.parse(until) && all.length < 1000; at += STEP[step]) {
    all.push({at: new Date(at).toISOString(), ...by.get(at)});
  }
  return all;
};

const total = (point) => KINDS.reduce((sum, [kind]) => sum + (point[kind] ?? 0), 0);

// With `onSpan`, a stretch of it can be chosen with the mouse, or with the arrows: `since:` and `until:` say the same.
export const Columns = ({stats, onSpan, label}) => {
  const points = filled(stats);
  // By their moments: while one chooses, the columns move on.
  const [ends, setEnds] = useState(null);
  const placeOf = (at) => points.findIndex((point) => point.at === at);
  const [from, to] = ends && ends.every((at) => placeOf(at) >= 0) ? ends.map(placeOf) : [null, null];
  const choose = (first, last) => setEnds([points[first].at, points[last].at]);
  const most = Math.max(1, ...points.map(total));
  const width = 1000 / points.length;
  const [low, high] = from === null ? [-1, -1] : [Math.min(from, to), Math.max(from, to)];
  const end = () => {
    if (from === null) return;
    const until = new Date(Date.parse(points[high].at) + STEP[stats.step]).toISOString();
    onSpan(points[low].at, until);
    setEnds(null);
  };
  const press = (event) => {
    if (event.altKey || event.ctrlKey || event.metaKey || !points.length) return;
    const last = points.length - 1;
    const next = {
      ArrowLeft: from === null ? last : Math.max(0, to - 1),
      ArrowRight: from === null ? 0 : Math.min(last, to + 1),
      Home: 0,
      End: last,
    }[event.key];
    if (next !== undefined) choose(from === null || !event.shiftKey ? next : from, next);
    else if (from !== null && event.key === "Enter") end();
    else if (from !== null && event.key === "Escape") setEnds(null);
    else return;
    event.preventDefault();
    event.stopPropagation();
  };
  const there = KINDS.filter(([kind]) => points.some((point) => point[kind]));
  const text = (point) => {
    const parts = KINDS.filter(([kind]) => point[kind]).map(([kind, name]) => `${number(point[kind])} ${name}`);
    return `${utc(point.at)}\n${parts.join(", ") || "nothing"}`;
  };
  return html`<figure class="columns">
    <figcaption>${label}
      <span class="legend">${there.map(([kind, name]) => html`<span><i class=${`fill-${kind}`}></i>${name}</span>`)}</span>
      <span class="muted">at most ${number(most === 1 && !there.length ? 0 : most)} a ${stats.step}</span></figcaption>
    <svg viewBox="0 0 1000 100" preserveAspectRatio="none" role=${onSpan ? "application" : "img"} aria-roledescription="chart" aria-label=${`${label}: ${count(
      points.reduce((sum, point) => sum + total(point), 0), "delivery", "deliveries")}`}
      class=${onSpan ? "brush" : ""} tabindex=${onSpan && points.length ? 0 : undefined} onKeyDown=${onSpan && press}
      aria-description=${onSpan && "The arrow keys choose a time, with Shift a stretch, and Enter takes it."}
      onMouseUp=${end} onMouseLeave=${() => setEnds(null)} onBlur=${() => setEnds(null)}>
      ${points.map((point, place) => {
        let top = 100;
        return html`<g key=${point.at} class=${place >= low && place <= high ? "chosen" : ""}
          onMouseDown=${onSpan && ((event) => {
            event.preventDefault();
            choose(place, place);
          })}
          onMouseMove=${onSpan && from !== null && ((event) => event.buttons && choose(from, place))}>
          <title>${text(point)}</title>
          <rect class="behind" x=${place * width} y="0" width=${width} height="100" />
          ${KINDS.map(([kind]) => {
            // What is there is seen, however little it is.
            const height = point[kind] ? Math.max(1.5, (point[kind] / most) * 98) : 0;
            top -= height;
            return height > 0 && html`<rect class=${`fill-${kind}`} x=${place * width + width * 0.08} y=${Math.max(0, top)}
              width=${width * 0.84} height=${height} />`;
          })}
        </g>`;
      })}
    </svg>
    <div class="axis"><span><${Time} at=${stats.since} exact /></span>
      <span aria-live="polite">${from !== null && html`${utc(points[low].at)}${high > low && ` to ${utc(points[high].at)}`}:${" "}
        ${count(points.slice(low, high + 1).reduce((sum, point) => sum + total(point), 0), "delivery", "deliveries")}`}</span>
      <span><${Time} at=${stats.until} exact /></span></div>
  </figure>`;
};

export const Sparkline = ({points, since, until, label}) => {
  const all = filled({since, until, step: "hour", points});
  const most = Math.max(1, ...all.map(total));
  const line = all
    .map((point, place) => `${((place / Math.max(1, all.length - 1)) * 96 + 2).toFixed(1)},${(22 - (total(point) / most) * 20).toFixed(1)}`)
    .join(" ");
  return html`<svg class="sparkline" viewBox="0 0 100 24" preserveAspectRatio="none" role="img" aria-label=${label}>
    <title>${label}</title><polyline points=${line} /></svg>`;
};
