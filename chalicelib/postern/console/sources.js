// Where deliveries come from: addresses, secrets by their fingerprints, and how payloads change.

import {html, useEffect, useRef, useState} from "./html.js";
import {base, post, usePages, useQuery} from "./api.js";
import {count, number, plain, seconds, short} from "./format.js";
import {Action, ask, Copy, Empty, hrefTo, Id, Loaded, More, say, Table, Tabs, Time, usePlace} from "./ui.js";

const address = (source) => `${location.origin}${base}/webhooks/${source}`;

const SPANS = [["1", "Last day"], ["7", "Last week"], ["30", "Last 30 days"]];

export const Sources = () => {
  const days = usePlace().query.get("days") ?? "1";
  const status = useQuery("status", {}, {every: 15_000});
  const secrets = useQuery("sources", {days});
  const handlers = useQuery("handlers");
  const [setUp, setSetUp] = useState(null);
  return html`<h1>Sources</h1>
    <p class="muted">Declared in <code>sources.toml</code>. Another one: <code>postern sources add PROVIDER</code>.</p>
    <${Loaded} of=${status}>${(found) => html`<${Table} caption="Sources" rows=${found.sources} keyOf=${(row) => row.source} columns=${[
      {name: "Source", of: (row) => html`<a href=${hrefTo("events", {q: `source:${row.source}`})}>${plain(row.source)}</a>`},
      {name: "Address", class: "wide", of: (row) => html`<code>${address(row.source)}</code> <${Copy} text=${address(row.source)}>Copy<//>`},
      {name: "Last seen", of: (row) => html`<${Time} at=${row.last_seen} />`},
      {name: "In a day", class: "number", of: (row) => number(row.day)},
      {name: "", of: (row) => (row.quiet ? html`<span class="badge is-failed">quiet for ${row.quiet.minutes} min</span>` : row.last_seen ? "" : html`<span class="muted">nothing yet</span>`)},
      {name: "", of: (row) => html`<button type="button" class="quiet" aria-expanded=${setUp === row.source}
        onClick=${() => setSetUp(setUp === row.source ? null : row.source)}>Set up</button>`},
    ]} />
    ${found.sources.some((each) => each.source === setUp) && html`<${SetUp} source=${setUp} close=${() => setSetUp(null)} />`}`}<//>
    <h2>Secrets that verified events</h2>
    <p class="muted">A secret whose last event is long ago is no longer used by its provider, and can go.</p>
    <${Tabs} name="days" value=${days} label="How far back" of=${SPANS} />
    <${Loaded} of=${secrets}>${(found) => found.secrets.length
      ? html`<${Table} caption="Secrets" rows=${found.secrets} keyOf=${(row) => `${row.source} ${row.secret}`} columns=${[
          {name: "Source", of: (row) => plain(row.source)},
          {name: "Secret", class: "wide", of: (row) => (row.secret ? html`<code>${plain(row.secret)}</code>` : html`<span class="muted">none: not signed, or from before fingerprints were kept</span>`)},
          {name: "Events", class: "number", of: (row) => number(row.events)},
          {name: "First", of: (row) => html`<${Time} at=${row.first} />`},
          {name: "Last", of: (row) => html`<${Time} at=${row.last} />`},
        ]} />`
      : html`<p class="muted">None yet.</p>`}<//>
    <h2>Handlers</h2>
    <${Loaded} of=${handlers} lines=${2}>${(found) => found.handlers.length
      ? html`${found.doubts.map((each) => html`<p class="problem">${plain(each)}</p>`)}
        <${Table} caption="Handlers" rows=${found.registered} keyOf=${(row) => `${row.name} ${row.source} ${row.type}`} columns=${[
          {name: "Handler", class: "wide", of: (row) => html`<code>${plain(row.name)}</code>`},
          {name: "Takes", of: (row) => html`<a href=${hrefTo("events", {q: `${row.source.includes("*") ? "" : `source:${row.source}`} ${/^[^*]*\*?$/.test(row.type) && row.type !== "*" ? `type:${row.type}` : ""}`.trim()})}>${plain(`${row.source} ${row.type}`)}</a>`},
          {name: "In a day", class: "number", of: (row) => number(row.events)},
          {name: "p50", class: "number", of: (row) => seconds(row.p50_ms === null ? null : row.p50_ms / 1000)},
          {name: "p95", class: "number", of: (row) => seconds(row.p95_ms === null ? null : row.p95_ms / 1000)},
          {name: "Failed in a week", class: "number", of: (row) => number(row.failures)},
          {name: "Last failure", of: (row) => html`<${Time} at=${row.last_failure} />`},
        ]} />`
      : html`<p class="muted">None: events are stored, and nothing else is done.</p>`}<//>`;
};

// The sources' secrets are for the public function alone, so it is the command line that signs a test.
const SetUp = ({source, close}) => {
  const isLocal = ["localhost", "127.0.0.1", "[::1]"].includes(location.hostname);
  const at = isLocal ? "" : " --stage STAGE";
  const steps = [
    ["Give its provider the address", address(source)],
    ...(isLocal ? [] : [["If it signs: give Postern its secret, which is asked for", `postern secrets set ${source}${at}`]]),
    ["Send a test, signed as the provider signs", `postern send ${source}${at}`],
    ["See its events as they come", `postern listen --source ${source}${at}`],
  ];
  const heading = useRef(null);
  useEffect(() => heading.current.focus(), [source]);
  return html`<section class="outcome" aria-label=${`Set up ${source}`}>
    <div class="row"><h2 ref=${heading} tabindex="-1">Set up ${plain(source)}</h2><span class="space"></span><button type="button" onClick=${close}>Close</button></div>
    <ol>${steps.map(([what, text]) => html`<li>${what}: <code>${plain(text)}</code>${" "}<${Copy} text=${text}>Copy<//></li>`)}</ol>
    <p class="muted">What to press at the provider’s: <code>postern providers PROVIDER</code>.</p></section>`;
};

const KINDS = {new: "new", missing: "gone", retyped: "of another type"};

export const Drift = () => {
  const {query} = usePlace();
  const state = query.get("state") ?? "open";
  const drift = usePages("drift", "drift", {state, limit: 50}, {every: 60_000});
  const accept = (ids, said) => async () => {
    await post("drift/accept", {ids});
    say(said);
    drift.refresh();
  };
  const all = async () => {
    const ids = drift.rows.map((row) => row.id);
    if (await ask({title: `Take ${count(ids.length, "change")} for usual?`, text: "Those that are not listed yet, and that are found later, stay.", yes: "Accept them"})) {
      await accept(ids, "Accepted.")();
    }
  };
  return html`<h1>Drift</h1>
    <p class="muted">Where payloads departed from the shape that their type usually has. Learned hourly from the rows.</p>
    <${Tabs} name="state" value=${state} label="State" of=${[["open", "Not accepted"], ["accepted", "Accepted"], ["all", "All"]]} />
    <${Loaded} of=${drift}>${() => drift.rows.length
      ? html`${state === "open" && html`<div class="row"><span class="space"></span><${Action} work=${all}>Accept all that are listed …<//></div>`}
        <${Table} caption="Drift" rows=${drift.rows} columns=${[
          {name: "Found", of: (row) => html`<${Time} at=${row.found_at} />`},
          {name: "Source", of: (row) => plain(row.source)},
          {name: "Type", of: (row) => html`<bdi>${short(row.type, 40)}</bdi>`},
          {name: "Where", class: "wide", of: (row) => html`<code><bdi>${short(row.path, 90)}</bdi></code>`},
          {name: "Is", of: (row) => KINDS[row.kind]},
          {name: "Was", of: (row) => plain([row.was].flat().join(", ") || "–")},
          {name: "Became", of: (row) => plain([row.became].flat().join(", ") || "–")},
          {name: "Event", of: (row) => row.event_id && html`<${Id} id=${row.event_id} />`},
          {name: "", of: (row) => (row.accepted_at ? "accepted" : html`<${Action} work=${accept([row.id], "Accepted.")}>Accept<//>`)},
        ]} /><${More} of=${drift} />`
      : html`<${Empty} title="No changes"><p>The shape of a type is learned from its first events; what departs from it later is listed here.</p><//>`}<//>`;
};
