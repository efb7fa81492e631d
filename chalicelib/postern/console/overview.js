// What needs a person, in sentences; then how much came, and what became of it.

import {html} from "./html.js";
import {useQuery} from "./api.js";
import {count, number, plain, seconds, short, utc} from "./format.js";
import {Columns, Empty, hrefTo, Loaded, Sparkline, Table, Tabs, Time, go, usePlace} from "./ui.js";

const SPANS = {
  hour: {name: "last hour", step: "minute", milliseconds: 3_600_000},
  day: {name: "last day", step: "hour", milliseconds: 86_400_000},
  fortnight: {name: "last 14 days", step: "hour", milliseconds: 14 * 86_400_000},
};

// To the minute, so that the question stays the same for a while.
const before = (milliseconds) => new Date(Math.floor((Date.now() - milliseconds) / 60_000) * 60_000).toISOString();

export const Overview = () => {
  const {query} = usePlace();
  const span = Object.hasOwn(SPANS, query.get("span")) ? query.get("span") : "day";
  const status = useQuery("status", {}, {every: 10_000});
  const queues = useQuery("queues", {}, {every: 10_000});
  const stats = useQuery("stats", {step: SPANS[span].step, since: before(SPANS[span].milliseconds)}, {every: 15_000, as: `stats of the ${span}`});
  const sources = useQuery("stats", {step: "hour", since: before(86_400_000), by_source: true}, {every: 60_000, as: "stats by source"});
  return html`<h1>Overview</h1>
    <${Loaded} of=${status} lines=${3}>${(found) => html`<${Needs} status=${found} />`}<//>
    <${Tabs} name="span" value=${span} label="Span" of=${Object.entries(SPANS).map(([key, {name}]) => [key, name])} />
    <div class="chart-place">
      <${Loaded} of=${stats} lines=${4}>${(found) => html`<${Columns} stats=${found} label="Deliveries"
        onSpan=${(since, until) => go(hrefTo("events", {q: `since:${since} until:${until}`}))} />`}<//>
    </div>
    <${Loaded} of=${status} lines=${2}>${(found) => html`<${Figures} status=${found} stats=${stats.data} queues=${queues.data} />`}<//>
    <h2>Sources</h2>
    <${Loaded} of=${status}>${(found) => html`<${Sources} status=${found} stats=${sources.data} />`}<//>`;
};

// The weightiest first: what may be lost, then what is stuck, then what is odd.
const needs = (status) => {
  const {ledger, sources, identity} = status;
  const found = [];
  const add = (kind, text, href, link) => found.push({kind, text, href, link});
  if (!ledger.balanced) {
    add("bad", `${count(ledger.missing, "accepted event has", "accepted events have")} no row, and no queue holds ${ledger.missing === 1 ? "it" : "them"}.`, hrefTo("ledger"), "See the ledger");
  }
  if (status.dead) {
    add("bad", `${count(status.dead, "event was", "events were")} given up after the last try.`, hrefTo("events", {q: "status:dead"}), "See them");
  }
  for (const duty of status.failing_duties ?? []) {
    add("bad", `Maintenance fails at “${duty.name}”, which ${duty.done_at ? `was done last at ${utc(duty.done_at)}` : "has never been done"}: ${short(duty.reason, 200)}`, hrefTo("storage"), "See the storage");
  }
  if (ledger.stale) add("bad", "Maintenance has not balanced the ledger for half an hour: is it running?", hrefTo("ledger"), "See the ledger");
  for (const source of sources.filter((each) => each.quiet)) {
    const {minutes, expected} = source.quiet;
    add("odd", `${source.source} has been quiet for ${count(minutes, "minute")}; about ${Math.round(expected)} of them would usually have had something.`, hrefTo("sources"), "See the sources");
  }
  if (status.failed) {
    const oldest = status.oldest_failed;
    add("odd", `${count(status.failed, "event has", "events have")} failed and will be tried again${oldest ? `; the oldest is ${short(`${oldest.source} ${oldest.type}`, 60)}` : ""}.`, hrefTo("events", {q: "status:failed"}), "See them");
  }
  if (identity.other_bytes) {
    add("odd", `${count(identity.other_bytes, "delivery", "deliveries")} of the last day came under a known id with other bytes.`, hrefTo("duplicates", {why: "same_id_other_bytes"}), "See what was taken for a repetition");
  }
  if (status.open_issues) {
    add("odd", `${count(status.open_issues, "issue is", "issues are")} open.`, hrefTo("issues"), "See the issues");
  }
  if (status.open_drift) {
    add("note", `Payloads have changed in ${count(status.open_drift, "place")} that nobody has accepted.`, hrefTo("drift"), "See the changes");
  }
  if (identity.same_bytes) {
    add("note", `${count(identity.same_bytes, "event")} of the last day had the bytes of an earlier one under another id.`, hrefTo("duplicates"), "See the repetitions");
  }
  if (status.running_replays) {
    add("note", `${count(status.running_replays, "replay")} ${status.running_replays === 1 ? "is" : "are"} under way or resting.`, hrefTo("replays"), "See the replays");
  }
  return found;
};

const Needs = ({status}) => {
  const found = needs(status);
  if (!found.length) return html`<p class="well"><span aria-hidden="true">✓</span> Nothing needs you.</p>`;
  return html`<ul class="needs">${found.map(({kind, text, href, link}) => html`<li class=${`is-${kind}`}>
    <span>${plain(text)}</span> <a href=${href}>${link}</a></li>`)}</ul>`;
};

const Figures = ({status, stats, queues}) => {
  const {ledger} = status;
  const times = stats?.time_to_row;
  const ack = stats?.ack;
  const oldest = status.oldest_failed;
  return html`<dl class="figures">
    <div><dt>Ledger</dt><dd><a href=${hrefTo("ledger")} class=${ledger.balanced ? "good" : "bad"}>
      ${ledger.balanced ? "✓\u00a0balanced" : `${number(ledger.missing)} missing`}</a></dd>
      <dd class="muted">${ledger.checked_at ? html`checked <${Time} at=${ledger.checked_at} />` : "not checked yet"}</dd></div>
    <div><dt>In the queue</dt><dd>${queues ? number(queues.queue.waiting + queues.queue.in_work + queues.queue.delayed) : "–"}</dd>
      <dd class="muted">${queues ? `${number(queues.queue.in_work)} in work, ${number(queues.queue.delayed)} for later` : "\u00a0"}</dd></div>
    <div><dt>Dead letters</dt><dd><a href=${hrefTo("dead-letters")}>${queues ? number(queues.dead_letters.waiting + queues.dead_letters.in_work) : "–"}</a></dd>
      <dd class="muted">about, as SQS counts</dd></div>
    <div><dt>To the queue</dt><dd>${seconds(ack?.p50)}</dd>
      <dd class="muted">from receipt; p95 ${seconds(ack?.p95)}, p99 ${seconds(ack?.p99)}</dd></div>
    <div><dt>To its row</dt><dd>${seconds(times?.p50)}</dd>
      <dd class="muted">from receipt; p95 ${seconds(times?.p95)}, p99 ${seconds(times?.p99)}</dd></div>
    <div><dt>To retry</dt><dd><a href=${hrefTo("events", {q: "status:failed"})}>${number(status.failed)}</a></dd>
      <dd class="muted">${oldest ? html`the oldest came <${Time} at=${oldest.received_at} />` : "none waits"}</dd></div>
    <div><dt>Given up</dt><dd><a href=${hrefTo("events", {q: "status:dead"})}>${number(status.dead)}</a></dd>
      <dd class="muted">tried as often as the policy has it</dd></div>
  </dl>`;
};

const Sources = ({status, stats}) => {
  const seen = status.sources.filter((each) => each.last_seen);
  if (!seen.length) {
    return html`<${Empty} title="Nothing has come yet">
      <p>Send an example, signed as its provider does: <code>postern send github push</code></p>
      <p><a href=${hrefTo("sources")}>The sources and their addresses</a></p><//>`;
  }
  return html`<${Table} caption="Sources" rows=${seen} keyOf=${(row) => row.source}
    open=${(row) => hrefTo("events", {q: `source:${row.source}`})}
    columns=${[
      {name: "Source", of: (row) => html`<a href=${hrefTo("events", {q: `source:${row.source}`})}>${plain(row.source)}</a>`},
      {name: "Last day", class: "wide", of: (row) => stats && html`<${Sparkline} since=${stats.since} until=${stats.until}
        points=${stats.points.filter((point) => point.source === row.source)} label=${`${row.day} events in the last day`} />`},
      {name: "In an hour", class: "number", of: (row) => number(row.hour)},
      {name: "In a day", class: "number", of: (row) => number(row.day)},
      {name: "Last seen", of: (row) => html`<${Time} at=${row.last_seen} />`},
      {name: "", of: (row) => row.quiet && html`<span class="badge is-failed">quiet for ${row.quiet.minutes} min</span>`},
    ]} />`;
};
