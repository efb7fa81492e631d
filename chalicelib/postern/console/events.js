// Stored events: search, look on as they come, act on some or on all that match.

import {html, useEffect, useMemo, useRef, useState} from "./html.js";
import {get, usePages, useQuery} from "./api.js";
import {count, momentOf, number, plain, short} from "./format.js";
import {processAgain} from "./replays.js";
import {filtersOf, isUuid, QUALIFIERS, STATUSES, withWord, words, written} from "./search.js";
import {Action, ask, Badge, Columns, Empty, go, hrefTo, Id, Loaded, More, Table, Time, usePlace} from "./ui.js";

const LIMIT = 50;
const LIVE_EVERY = 2_000;
const DAY = 86_400_000;

export const Events = () => {
  const {query} = usePlace();
  const text = query.get("q") ?? "";
  // A relative time means the same for as long as the search stands.
  const {filters, problems} = useMemo(() => filtersOf(text), [text]);
  const isSearched = words(text).length > 0;
  const [isLive, setLive] = useState(false);
  const reads = useReads();
  const [chosen, setChosen] = useState(new Map());
  useEffect(() => setChosen(new Map()), [text]);
  const pauses = reads || chosen.size > 0;
  // What is searched row by row is not searched every other second.
  const mayLive = !filters.contains && !filters.error && !filters.attempts && !filters.type?.endsWith("*");
  const mayReplay = isSearched && !filters.error && !filters.attempts;
  const events = usePages("events", "events", {...filters, limit: LIMIT},
    {every: isLive && mayLive && !pauses ? LIVE_EVERY : 0, skip: problems.length > 0});
  return html`<h1>Events</h1>
    <${Search} text=${text} />
    ${problems.map((problem) => html`<p class="problem" role="alert">${plain(problem)}</p>`)}
    <${Histogram} filters=${filters} text=${text} />
    <div class="row bar">
      <label class="switch"><input type="checkbox" checked=${isLive && mayLive} disabled=${!mayLive}
        title=${mayLive ? "" : "Not for what is searched row by row"} onChange=${(event) => setLive(event.target.checked)} />
        Live</label>
      ${isLive && mayLive && html`<span class=${pauses ? "muted" : "live"}>${pauses ? "paused while you read" : "new events appear by themselves"}</span>`}
      <span class="space"></span>
      ${chosen.size > 0 && html`<span>${number(chosen.size)} chosen</span>
        <${Action} work=${() => again([...chosen.keys()])}>Process again<//>`}
      ${mayReplay && !chosen.size && events.rows.length > 0 && html`<a class="button" href=${hrefTo("replays", {q: text})}>
        Process all that match again …</a>`}
    </div>
    ${problems.length === 0 && html`<${Loaded} of=${events} lines=${10}>${() => html`
      ${events.rows.length > 0
        ? html`<${Table} caption="Events" rows=${events.rows} columns=${COLUMNS} chosen=${chosen} setChosen=${setChosen}
            open=${(row) => hrefTo(["events", row.id])} />`
        : html`<${None} isSearched=${isSearched} searchedTo=${events.data.searched_to} />`}
      ${events.data.searched_to && events.next && html`<p class="muted">Searched back to
        <${Time} at=${momentOf(events.next.before)} exact /> in the time there was. Go on?</p>`}
      <${More} of=${events} />`}<//>`}`;
};

// Whether somebody is looking at a row, so that nothing moves under their eyes.
const useReads = () => {
  const [reads, setReads] = useState(false);
  useEffect(() => {
    const look = () => setReads(scrollY > 200 || Boolean(document.activeElement?.closest("tbody")));
    const left = () => setTimeout(look);
    addEventListener("scroll", look, {passive: true});
    document.addEventListener("focusin", look);
    document.addEventListener("focusout", left);
    return () => {
      removeEventListener("scroll", look);
      document.removeEventListener("focusin", look);
      document.removeEventListener("focusout", left);
    };
  }, []);
  return reads;
};

const again = async (ids) => {
  const sure = await ask({
    title: `Process ${count(ids.length, "event")} again?`,
    text: "Their handlers run once more, in a transaction each.",
    yes: "Process again",
    type: ids.length > 20 ? ids.length : null,
  });
  if (sure) await processAgain(ids);
};

const COLUMNS = [
  {name: "Received", of: (row) => html`<${Time} at=${row.received_at} />`},
  {name: "Source", of: (row) => html`<bdi>${short(row.source, 40)}</bdi>`},
  {name: "Type", class: "wide", of: (row) => html`<bdi title=${plain(row.type)}>${short(row.type, 60)}</bdi>`},
  {name: "Status", of: (row) => html`<${Badge} kind=${row.status} />`},
  {name: "Tries", class: "number", of: (row) => row.attempts},
  {name: "Id", of: (row) => html`<${Id} id=${row.id} />`},
  {name: "Error", class: "error", of: (row) => row.error && html`<bdi title=${plain(row.error)}>${short(row.error, 90)}</bdi>`},
];

const None = ({isSearched, searchedTo}) =>
  searchedTo
    ? null
    : isSearched
      ? html`<${Empty} title="Nothing matches"><p>Take a word away, or look further back with <code>since:30d</code>.</p><//>`
      : html`<${Empty} title="No events yet">
          <p>Send one, signed as GitHub does: <code>postern send github push</code></p>
          <p>Or give a provider <a href=${hrefTo("sources")}>its source’s address</a>.</p><//>`;

// Of what counts are kept: by source, type and time. A search for anything else has none.
const Histogram = ({filters, text}) => {
  const counted = !filters.contains && !filters.key && !filters.issue && !filters.error && !filters.attempts && !filters.ids;
  const until = filters.until ?? null;
  const now = Math.floor(Date.now() / 60_000) * 60_000;
  const since = (filters.since ? Date.parse(filters.since) : 0) || (until ? Date.parse(until) : now) - DAY;
  const long = (until ? Date.parse(until) : now) - since;
  const step = long <= 3 * 3_600_000 ? "minute" : long <= 21 * DAY ? "hour" : "day";
  const stats = useQuery("stats", {since: new Date(since).toISOString(), until, step, source: filters.source, type: filters.type},
    {every: 30_000, as: `${filters.since} ${until} ${step} ${filters.source} ${filters.type}`, skip: !counted || long <= 0 || long > 1000 * DAY});
  if (!counted) return null;
  const shown = stats.data && filters.status
    ? {...stats.data, points: stats.data.points.map((point) => ({at: point.at, ...Object.fromEntries(filters.status.map((each) => [each, point[each]]))}))}
    : stats.data;
  return html`<div class="chart-place small">${shown && html`<${Columns} stats=${shown}
    label=${filters.since || until ? "In this time" : "Last day"}
    onSpan=${(from, to) => go(hrefTo("events", {q: withWord(withWord(text, "since", from), "until", to)}))} />`}</div>`;
};

// The field, what completes it, and its words as chips.
const Search = ({text}) => {
  const [typed, setTyped] = useState(text);
  const [place, setPlace] = useState(-1);
  const [isOpen, setOpen] = useState(false);
  const field = useRef(null);
  useEffect(() => setTyped(text), [text]);
  const offers = useOffers(typed, isOpen);
  const submit = async (value) => {
    setOpen(false);
    const bare = value.trim();
    if (isUuid(bare)) return go(hrefTo(["events", bare]));
    return go(hrefTo("events", {q: bare}));
  };
  const take = (offer) => {
    const start = typed.slice(0, typed.length - offer.typed.length);
    const next = `${start}${offer.text}${offer.text.endsWith(":") ? "" : " "}`;
    setTyped(next);
    setPlace(-1);
    field.current.focus();
  };
  const onKeyDown = (event) => {
    if (event.key === "ArrowDown" && offers.length) {
      event.preventDefault();
      setPlace((place + 1) % offers.length);
    } else if (event.key === "ArrowUp" && offers.length) {
      event.preventDefault();
      setPlace((place + offers.length) % (offers.length + 1) - 1);
    } else if ((event.key === "Tab" || event.key === "Enter") && place >= 0 && offers[place]) {
      event.preventDefault();
      take(offers[place]);
    } else if (event.key === "Escape") {
      if (!isOpen) field.current.blur();
      setOpen(false);
    }
  };
  const chips = words(text);
  return html`<form class="search" role="search" onSubmit=${(event) => {
    event.preventDefault();
    submit(typed);
  }}>
    <input ref=${field} id="search" type="search" autocomplete="off" spellcheck="false" role="combobox"
      aria-expanded=${isOpen && offers.length > 0} aria-controls="offers" aria-autocomplete="list"
      aria-activedescendant=${place >= 0 ? `offer-${place}` : undefined}
      aria-label="Search events" placeholder="source:stripe status:failed since:2h – or an id   ( / )" value=${typed}
      onInput=${(event) => {
        setTyped(event.target.value);
        setOpen(true);
        setPlace(-1);
      }}
      onFocus=${() => setOpen(true)} onBlur=${() => setTimeout(() => setOpen(false), 150)} onKeyDown=${onKeyDown} />
    <button type="submit" class="main">Search</button>
    <ul id="offers" role="listbox" class=${isOpen && offers.length ? "offers" : "unseen"} aria-label="What may follow">
      ${offers.map((offer, at) => html`<li id=${`offer-${at}`} role="option" aria-selected=${at === place}
        onMouseDown=${(event) => {
          event.preventDefault();
          take(offer);
        }}><code>${plain(offer.text)}</code> <span class="muted">${offer.about}</span></li>`)}
    </ul>
    ${chips.length > 0 && html`<div class="chips">${chips.map((word) => html`<span class="chip"><code>${short(word.text, 60)}</code>
      <button type="button" aria-label=${`Without ${word.text}`} onClick=${() =>
        submit(chips.filter((each) => each !== word).map((each) => each.text).join(" "))}>×</button></span>`)}</div>`}
  </form>`;
};

// Qualifiers first; after a colon its values, of which sources and types are those of the last days.
const useOffers = (typed, isOpen) => {
  const [known, setKnown] = useState(null);
  useEffect(() => {
    if (!isOpen || known) return;
    const begin = {sources: [], types: []};
    setKnown(begin);
    Promise.all([get("status"), get("events", {limit: 200})]).then(([status, {events}]) => setKnown({
      sources: status.sources.filter((each) => each.last_seen).map((each) => each.source),
      types: [...new Set(events.map((each) => each.type))].sort(),
    }), () => setKnown(null));
  }, [isOpen]);
  const last = /(?:^|\s)(\S*)$/.exec(typed)?.[1] ?? "";
  const [, name] = /^([a-z]+):(.*)$/.exec(last) ?? [];
  const values = {source: known?.sources, type: known?.types, status: STATUSES, since: ["1h", "24h", "7d", "30d"], until: ["1h", "24h"]};
  const made = name === undefined
    ? Object.entries(QUALIFIERS).map(([each, about]) => ({text: `${each}:`, about}))
    : (Object.hasOwn(values, name) && values[name] ? values[name] : []).map((each) => ({text: written(name, each), about: ""}));
  return made.filter((offer) => offer.text.startsWith(last) && offer.text !== last).slice(0, 10)
    .map((offer) => ({...offer, typed: last}));
};
