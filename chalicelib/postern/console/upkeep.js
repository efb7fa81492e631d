// Whether anything is missing, and how much room it all takes.

import {html} from "./html.js";
import {post, useQuery} from "./api.js";
import {count, number, plain, size} from "./format.js";
import {Action, ask, Empty, hrefTo, Loaded, say, Table, Time} from "./ui.js";

const BALANCE = ["accepted", "stored", "duplicates", "written_off", "missing", "surplus"];
const NAMES = {accepted: "Accepted", stored: "Stored", duplicates: "Repeated", written_off: "Written off", missing: "Missing", surplus: "Surplus"};
const columns = BALANCE.map((name) => ({name: NAMES[name], class: "number",
  of: (row) => (name === "missing" && row.missing ? html`<strong class="bad">${number(row.missing)}</strong>` : number(row[name]))}));

export const Ledger = () => {
  const ledger = useQuery("ledger", {}, {every: 30_000});
  const writeOff = async () => {
    const {since, sources} = ledger.data;
    const missing = sources.reduce((sum, row) => sum + row.missing, 0);
    const note = await ask({title: `Write off ${count(missing, "event")}?`, note: "Note", yes: "Write off", dangerous: true,
      text: "What is missing since the time above, and older than twenty minutes, is counted as missed no more. Say what you found out."});
    if (!note) return;
    const {written_off: many} = await post("ledger/write-offs", {note, since});
    say(`${count(many, "event")} written off.`);
    ledger.refresh();
  };
  return html`<h1>Ledger</h1>
    <p class="muted">What senders got a 202 for, minute by minute, against what is in the tables. Accepted = stored + repeated + missing − surplus.</p>
    <${Loaded} of=${ledger}>${(found) => html`
      <p class=${found.missing > found.waiting ? "bad" : "good"}><strong>${found.missing > found.waiting
        ? `${count(found.missing - found.waiting, "event is", "events are")} missing.`
        : "✓ It balances."}</strong>
        <span class="muted"> Checked <${Time} at=${found.checked_at} />; ${number(found.missing)} without a row at that check,
          ${number(found.waiting)} in the queues.</span></p>
      <h2>Since <${Time} at=${found.since} exact /></h2>
      ${found.sources.length
        ? html`<${Table} caption="By source" rows=${found.sources} keyOf=${(row) => row.source} columns=${[
            {name: "Source", class: "wide", of: (row) => plain(row.source)}, ...columns,
            {name: "Failed", class: "number", of: (row) => number(row.failed)},
            {name: "Dead", class: "number", of: (row) => number(row.dead)}]} />`
        : html`<${Empty} title="Nothing was counted yet"><p>Maintenance keeps the ledger, every five minutes.</p><//>`}
      ${found.minutes.length > 0 && html`<h2>Minutes that do not balance</h2>
        <div class="row"><span class="space"></span>${found.missing > found.waiting
          ? html`<${Action} kind="danger" work=${writeOff}>Write off …<//>`
          : html`<span class="muted">What is missing may be among what waits in the queues.</span>`}</div>
        <${Table} caption="Minutes" rows=${found.minutes} keyOf=${(row) => `${row.source} ${row.minute}`} columns=${[
          {name: "Minute", of: (row) => html`<${Time} at=${row.minute} exact />`},
          {name: "Source", class: "wide", of: (row) => html`<a href=${hrefTo("events", {q: `source:${row.source} since:${row.minute} until:${new Date(Date.parse(row.minute) + 60_000).toISOString()}`})}>${plain(row.source)}</a>`},
          ...columns, {name: "Note", of: (row) => plain(row.note ?? "")}]} />`}`}<//>`;
};

export const Storage = () => {
  const storage = useQuery("storage", {}, {every: 60_000});
  return html`<h1>Storage</h1>
    <${Loaded} of=${storage}>${(found) => html`
      ${found.warnings.length
        ? html`<ul class="needs">${found.warnings.map((each) => html`<li class="is-odd">${plain(each)}</li>`)}</ul>`
        : html`<p class="well"><span aria-hidden="true">✓</span> All is well kept.</p>`}
      <dl class="figures">
        <div><dt>Events are kept</dt><dd>${number(found.retention.retention_days)} days</dd></div>
        <div><dt>Unresolved ones</dt><dd>${number(found.retention.unresolved_days)} days</dd><dd class="muted">${number(found.unresolved_kept)} outlived their day</dd></div>
        <div><dt>Dedup keys</dt><dd>${number(found.retention.dedup_days)} days</dd><dd class="muted">about ${number(found.dedup_keys.rows)} of them</dd></div>
      </dl>
      <h2>Tables</h2>
      <${Table} caption="Tables" rows=${found.tables} keyOf=${(row) => row.name} columns=${[
        {name: "Table", class: "wide", of: (row) => html`<code>${plain(row.name)}</code>`},
        {name: "Rows, about", class: "number", of: (row) => number(row.rows)},
        {name: "All", class: "number", of: (row) => size(row.bytes)},
        {name: "Rows", class: "number", of: (row) => size(row.heap_bytes)},
        {name: "Indexes", class: "number", of: (row) => size(row.index_bytes)},
        {name: "Large values", class: "number", of: (row) => size(row.toast_bytes)},
        {name: "Vacuumed", of: (row) => html`<${Time} at=${row.last_vacuum} />`},
      ]} />
      <h2>Partitions</h2>
      <${Table} caption="Partitions" rows=${found.partitions} keyOf=${(row) => row.table} columns=${[
        {name: "Table", class: "wide", of: (row) => html`<code>${plain(row.table)}</code>`},
        {name: "Days", class: "number", of: (row) => number(row.count)},
        {name: "Oldest", of: (row) => plain(row.oldest ?? "–")},
        {name: "Ahead", class: "number", of: (row) => `${number(row.days_ahead)} days`},
        {name: "Without a day", class: "number", of: (row) => number(row.default_rows)},
        {name: "Next to go", of: (row) => plain(row.next_drop ?? "–")},
      ]} />
      <h2>Indexes</h2>
      <${Table} caption="Indexes" rows=${found.indexes} keyOf=${(row) => row.name} columns=${[
        {name: "Index", class: "wide", of: (row) => html`<code>${plain(row.name)}</code>`},
        {name: "Of", of: (row) => html`<code>${plain(row.table)}</code>`},
        {name: "Size", class: "number", of: (row) => size(row.bytes)},
        {name: "Used", class: "number", of: (row) => count(row.scans, "time")},
        {name: "", of: (row) => (row.valid ? "" : "invalid")},
      ]} />`}<//>`;
};
