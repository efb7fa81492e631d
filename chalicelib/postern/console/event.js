// One event: what happened to it, what came, and what can be done.

import {html, useEffect, useState} from "./html.js";
import {base, bytesOf, get, post, useQuery} from "./api.js";
import {ago, count, plain, seconds, short, utc} from "./format.js";
import {Headers, Payload} from "./payload.js";
import {processAgain} from "./replays.js";
import {written} from "./search.js";
import {Action, ask, Badge, Copy, Empty, hrefTo, Id, Loaded, Problem, Table, Time} from "./ui.js";

export const Event = ({id}) => {
  const event = useQuery(`events/${encodeURIComponent(id)}`);
  if (event.error?.status === 404) return html`<${Unknown} id=${id} />`;
  return html`<${Loaded} of=${event} name="An event" lines=${12}>${({event: found}) => html`<${Found} event=${found} />`}<//>`;
};

const Unknown = ({id}) => html`<h1>No such event</h1>
  <${Empty} title="Nothing is stored under this id"><p>An accepted event may still be in the queue: look again in a moment.</p>
    <p><a href=${hrefTo("events", {q: `id:${id}`})}>Search for it as a provider’s id</a></p><//>`;

const Found = ({event}) => {
  const body = useBody(event);
  return html`
    <p class="crumbs"><a href=${hrefTo("events")}>Events</a> / <a href=${hrefTo("events", {q: `source:${event.source}`})}>${plain(event.source)}</a></p>
    <h1><bdi>${short(event.type, 120)}</bdi> <${Badge} kind=${event.status} /></h1>
    ${event.repetition && html`<p class="note">The id that you asked for came ${ago(event.repetition.received_at)} and was taken for a repetition of${" "}
      this event (${plain(event.repetition.why)}). <a href=${hrefTo(["duplicates", event.repetition.id])}>See the repetition</a></p>`}
    <div class="row">
      <${Action} kind="main" work=${() => again(event)}>Process again<//>
      <${DryRun} event=${event} />
      <${Copy} text=${() => curlOf(event, body.bytes)} disabled=${!body.bytes} title="The delivery as it came, for a shell">Copy as curl<//>
      <${Copy} text=${() => fixtureOf(event, body.bytes)} disabled=${!body.bytes} title="For your handlers’ tests">Copy as pytest fixture<//>
      <${Copy} text=${event.id}>Copy id<//>
    </div>
    <${Facts} event=${event} />
    <h2>What happened</h2>
    <${Timeline} event=${event} />
    ${body.bytes ? html`<${Payload} bytes=${body.bytes} name="Body" />` : html`<${Problem} error=${body.error} />
      ${!body.error && html`<p class="muted" aria-busy="true">Loading the body: ${Math.round(body.part * 100)} % …</p>`}`}
    <${Headers} of=${event.headers} />
    <${Duplicates} event=${event} />`;
};

const again = async (event) => {
  const text = event.status === "processed"
    ? "It was processed: its handlers run once more, and what they did outside the database they do again."
    : "Its handlers run once more.";
  if (await ask({title: "Process this event again?", text, yes: "Process again"})) await processAgain([event.id]);
};

// A large body comes in parts.
const useBody = (event) => {
  const [found, setFound] = useState({bytes: event.body === null ? null : bytesOf(event.body), error: null, part: 0});
  useEffect(() => {
    if (event.body !== null) return undefined;
    const control = new AbortController();
    const read = async () => {
      const whole = new Uint8Array(event.bytes);
      for (let at = 0; at < event.bytes; ) {
        const {part} = await get(`events/${event.id}/body`, {offset: at}, control.signal);
        const bytes = bytesOf(part);
        if (!bytes.length) throw new Error("The body is no longer there.");
        whole.set(bytes, at);
        at += bytes.length;
        setFound({bytes: null, error: null, part: at / event.bytes});
      }
      setFound({bytes: whole, error: null, part: 1});
    };
    read().catch((error) => control.signal.aborted || setFound({bytes: null, error, part: 0}));
    return () => control.abort();
  }, [event.id]);
  return found;
};

const Facts = ({event}) => html`<dl class="facts">
  <div><dt>Received</dt><dd><${Time} at=${event.received_at} /></dd></div>
  <div><dt>Processed</dt><dd><${Time} at=${event.processed_at} /></dd></div>
  <div><dt>Id</dt><dd><code>${event.id}</code></dd></div>
  <div><dt>Identity</dt><dd><code><bdi>${plain(event.dedup_key)}</bdi></code>${" "}
    <a href=${hrefTo("events", {q: written("id", event.dedup_key)})}>all of it</a></dd></div>
  ${event.delivery_id && html`<div><dt>Delivery</dt><dd>one of several in <code>${event.delivery_id}</code></dd></div>`}
  ${event.same_body_as && html`<div><dt>Same bytes as</dt><dd><${Id} id=${event.same_body_as} /></dd></div>`}
  ${event.secret && html`<div><dt>Verified with</dt><dd>the secret <code>${plain(event.secret)}</code></dd></div>`}
  ${event.request_id && html`<div><dt>Request</dt><dd><code>${plain(event.request_id)}</code></dd></div>`}
</dl>`;

const TRIGGERS = {first: "first try", retry: "tried again", replay: "a replay", bulk: "a replay of many", redrive: "a redrive"};
// What was asked for beside its own way from receipt to row.
const ASIDE = new Set(["replay", "bulk"]);

const queued = ({received_at, queued_at, origin}) => {
  if (!queued_at) return null;
  // Two clocks, which may be some milliseconds apart.
  const passed = Math.max(0, Date.parse(queued_at) - Date.parse(received_at));
  return {at: passed ? queued_at : received_at, kind: "arrived", title: "Queued",
    text: `${seconds(passed / 1000)} later${origin ? "." : "; then its sender was answered."}`};
};

const Timeline = ({event}) => {
  const steps = [
    {at: event.received_at, kind: "arrived", title: event.origin ? "Fetched from its provider’s history" : "Received",
      text: event.queued_at || event.origin ? null : "Verified, queued, and answered with 202."},
    ...[queued(event)].filter(Boolean),
    ...event.duplicates.map((each) => ({at: each.received_at, kind: "duplicate", aside: true, title: each.accepted_at ? "A repetition, let through" : "Came again",
      text: html`${whyOf(each.why)}. <a href=${hrefTo(["duplicates", each.id])}>See it</a>`})),
    ...event.attempts_made.map((each) => ({at: each.started_at, kind: each.outcome, try: each, aside: ASIDE.has(each.trigger),
      title: `Try ${each.number}, ${TRIGGERS[each.trigger] ?? plain(each.trigger)}`})),
  ].sort((one, other) => (one.at < other.at ? -1 : one.at > other.at ? 1 : 0));
  return html`<ol class="timeline">${steps.map((step) => html`<li class=${`is-${step.kind} ${step.aside ? "aside" : ""}`}>
    <div class="row"><strong>${step.title}</strong>
      ${step.try && html`<${Badge} kind=${step.kind} />`}
      <${Time} at=${step.at} />
      ${step.try?.duration_ms > 0 && html`<span class="muted">took ${seconds(step.try.duration_ms / 1000)}</span>`}</div>
    ${step.text && html`<div class="muted">${step.text}</div>`}
    ${step.try?.message && html`<div class="error-text"><bdi>${plain(step.try.error_class)}: ${plain(step.try.message)}</bdi>
      ${step.try.handler && html` in <code>${plain(step.try.handler)}</code>`}
      ${step.try.issue_id && html` · <a href=${hrefTo(["issues", step.try.issue_id])}>issue ${step.try.issue_id}</a>`}
      ${step.try.replay_id && html` · <a href=${hrefTo(["replays", step.try.replay_id])}>the replay</a>`}</div>`}
    ${step.try?.traceback && html`<details><summary>Traceback</summary><pre tabindex="0">${plain(step.try.traceback)}</pre></details>`}
  </li>`)}
  ${event.status === "failed" && html`<li class="is-waiting"><span class="muted">It is tried again by itself.</span></li>`}
  ${event.status === "dead" && html`<li class="is-waiting"><span class="muted">Nothing more happens by itself: mend the cause, then process it again.</span></li>`}
  </ol>`;
};

const DryRun = ({event}) => {
  const [result, setResult] = useState(null);
  return html`<${Action} title="Runs its handlers and takes everything back" work=${async () => setResult(await post(`events/${event.id}/dry-run`))}>
      Dry run<//>
    ${result && html`<${Outcome} result=${result} close=${() => setResult(null)} />`}`;
};

const Outcome = ({result, close}) => html`<section class="outcome" aria-label="Dry run">
  <div class="row"><h2>Dry run</h2><${Badge} kind=${result.outcome} /><span class="muted">${result.handlers.length
    ? `${result.handlers.map(plain).join(", ")}; everything was taken back`
    : "No handler takes this type."}</span>
    <span class="space"></span><button type="button" onClick=${close}>Close</button></div>
  ${result.failure && html`<div class="error-text">${plain(result.failure.error_class)}: ${plain(result.failure.message)}</div>
    <details><summary>Traceback</summary><pre tabindex="0">${plain(result.failure.traceback)}</pre></details>`}
  ${result.changes.length > 0
    ? html`<div class="table"><table><caption class="unseen">Rows that would change</caption><tbody>${result.changes.map((change) => html`<tr>
        <td>${change.kind}</td><td><code>${plain(change.table)}</code></td>
        <td><pre class="wraps">${plain(changed(change))}</pre></td></tr>`)}</tbody></table></div>`
    : !result.failure && result.outcome !== "postponed" && html`<p class="muted">No row would change.</p>`}
  ${result.incomplete.map((each) => html`<p class="muted">${plain(each)}</p>`)}
</section>`;

const changed = ({kind, key, before, after}) => {
  const rows = {...before, ...after};
  const text = (value) => JSON.stringify(value) ?? "–";
  const of = Object.entries(key).map(([name, value]) => `${name}=${text(value)}`).join(" ");
  const told = Object.keys(rows)
    .filter((name) => !(name in key) && (kind !== "updated" || text(before?.[name]) !== text(after?.[name])))
    .map((name) => (kind === "updated" ? `${name}: ${text(before?.[name])} → ${text(after?.[name])}` : `${name}: ${text(rows[name])}`));
  return [of, ...told].filter(Boolean).join("\n");
};

const WHY = {
  same_id: "the same id, the same bytes",
  same_id_other_bytes: "the same id, other bytes",
  same_bytes: "the same bytes, and no id",
};
export const whyOf = (why) => WHY[why] ?? "from before reasons were kept";

const Duplicates = ({event}) => event.duplicates.length > 0 && html`<h2>Came again ${event.duplicates.length === 100 ? "100 times at least" : count(event.duplicates.length, "time")}</h2>
  <${Table} caption="Repetitions" rows=${event.duplicates} open=${(row) => hrefTo(["duplicates", row.id])} columns=${[
    {name: "Received", of: (row) => html`<${Time} at=${row.received_at} />`},
    {name: "Why", class: "wide", of: (row) => whyOf(row.why)},
    {name: "Id", of: (row) => html`<${Id} id=${row.id} href=${hrefTo(["duplicates", row.id])} />`},
    {name: "", of: (row) => row.accepted_at && "let through"},
  ]} />`;

// --- To take away

// In single quotes nothing means anything but the quote itself.
const shell = (text) => `'${text.replace(/'/g, "'\\''")}'`;

const SKIPPED = new Set(["host", "content-length", "accept-encoding", "connection", "x-amzn-trace-id", "x-forwarded-for",
  "x-forwarded-port", "x-forwarded-proto", "via", "cdn-loop"]);

const curlOf = (event, bytes) => {
  const url = `${location.origin}${base}/webhooks/${event.source}`;
  const headers = Object.entries(event.headers).filter(([name]) => !SKIPPED.has(name));
  const text = textOf(bytes);
  const body = text === null ? "--data-binary @-" : `--data-raw ${shell(text)}`;
  const curl = [`curl -X POST ${shell(url)}`, ...headers.map(([name, value]) => `-H ${shell(`${name}: ${value}`)}`), body].join(" \\\n  ");
  return text === null ? `printf '${[...bytes].map((each) => `\\${each.toString(8).padStart(3, "0")}`).join("")}' | ${curl}` : curl;
};

// As a shell can be given it, or null: no bytes that are no text, and nothing that steers a terminal.
const textOf = (bytes) => {
  try {
    const text = new TextDecoder("utf-8", {fatal: true, ignoreBOM: true}).decode(bytes);
    return plain(text) === text ? text : null;
  } catch {
    return null;
  }
};

const fixtureOf = (event, bytes) => {
  const body = [...bytes].map((each) =>
    each === 92 ? "\\\\" : each === 34 ? '\\"' : each > 31 && each < 127 ? String.fromCharCode(each) : `\\x${each.toString(16).padStart(2, "0")}`).join("");
  return `@pytest.fixture
def delivery() -> dict[str, object]:
    """${event.source} ${event.type.replace(/[^\w. :-]/g, "?")}, received ${utc(event.received_at)} as ${event.id}."""
    return {
        "source": ${JSON.stringify(event.source)},
        "type": ${JSON.stringify(event.type)},
        "headers": ${JSON.stringify(event.headers, null, 4).replace(/\n/g, "\n        ")},
        "body": b"${body}",
    }
`;
};
