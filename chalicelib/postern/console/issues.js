// Failures, grouped by what and where.

import {html} from "./html.js";
import {call, usePages, useQuery} from "./api.js";
import {count, number, plain, short} from "./format.js";
import {Action, Badge, Empty, hrefTo, Id, Loaded, More, say, Table, Tabs, Time, usePlace} from "./ui.js";

const STATES = [["open", "Open"], ["acknowledged", "Acknowledged"], ["resolved", "Resolved"], ["all", "All"]];

export const Issues = () => {
  const {query} = usePlace();
  const state = query.get("state") ?? "open";
  const issues = usePages("issues", "issues", {state: state === "all" ? null : state, limit: 50}, {every: 30_000});
  return html`<h1>Issues</h1>
    <${Tabs} name="state" value=${state} label="State" of=${STATES} />
    <${Loaded} of=${issues}>${() => issues.rows.length
      ? html`<${Table} caption="Issues" rows=${issues.rows} open=${(row) => hrefTo(["issues", row.id])} columns=${[
          {name: "State", of: (row) => html`<${Badge} kind=${row.state} />`},
          {name: "What", class: "wide", of: (row) => html`<a href=${hrefTo(["issues", row.id])}><bdi>${short(row.error_class, 60)}</bdi></a>
            <div class="muted"><bdi>${short(row.message, 140)}</bdi></div>`},
          {name: "Where", of: (row) => html`<code>${short(row.handler, 50)}</code>`},
          {name: "Times", class: "number", of: (row) => number(row.count)},
          {name: "Last", of: (row) => html`<${Time} at=${row.last_seen} />`},
        ]} /><${More} of=${issues} />`
      : html`<${Empty} title=${state === "open" ? "No open issues" : "None here"}>
          <p>A failed try is grouped here by its error and its handler.</p><//>`}<//>`;
};

export const Issue = ({id}) => {
  const issue = useQuery(`issues/${encodeURIComponent(id)}`, {}, {every: 30_000});
  return html`<p class="crumbs"><a href=${hrefTo("issues")}>Issues</a></p>
    <${Loaded} of=${issue} name="An issue" lines=${10}>${({issue: found}) => html`<${Found} issue=${found} refresh=${issue.refresh} />`}<//>`;
};

const Found = ({issue, refresh}) => {
  const to = (state, said) => async () => {
    await call("PATCH", `issues/${issue.id}`, {state});
    say(said);
    refresh();
  };
  const left = (issue.events.failed ?? 0) + (issue.events.dead ?? 0);
  return html`<h1><bdi>${short(issue.error_class, 100)}</bdi> <${Badge} kind=${issue.state} /></h1>
    <p class="error-text"><bdi>${plain(issue.message)}</bdi></p>
    <div class="row">
      ${issue.state !== "acknowledged" && html`<${Action} work=${to("acknowledged", "Acknowledged: somebody looks into it.")}>Acknowledge<//>`}
      ${issue.state !== "resolved" && html`<${Action} kind="main" work=${to("resolved", "Resolved. It opens again when it happens again.")}>Resolve<//>`}
      ${issue.state !== "open" && html`<${Action} work=${to("open", "Open again.")}>Reopen<//>`}
      ${left > 0 && html`<a class="button" href=${hrefTo("replays", {q: `issue:${issue.id} status:failed,dead`})}>
        Process its ${count(left, "event")} again …</a>`}
    </div>
    <dl class="facts">
      <div><dt>Handler</dt><dd><code>${plain(issue.handler)}</code></dd></div>
      <div><dt>Happened</dt><dd>${count(issue.count, "time")}</dd></div>
      <div><dt>First</dt><dd><${Time} at=${issue.first_seen} /></dd></div>
      <div><dt>Last</dt><dd><${Time} at=${issue.last_seen} /></dd></div>
      <div><dt>Its events now</dt><dd>${Object.entries(issue.events).map(([status, many]) => html`
        <a href=${hrefTo("events", {q: `issue:${issue.id} status:${status}`})}><${Badge} kind=${status}>${number(many)} ${status}<//></a> `)}</dd></div>
    </dl>
    ${issue.traceback && html`<h2>Traceback of the last</h2><pre tabindex="0">${plain(issue.traceback)}</pre>`}
    <h2>Latest tries</h2>
    <${Table} caption="Latest tries" rows=${issue.attempts} keyOf=${(row) => `${row.id}-${row.number}`}
      open=${(row) => hrefTo(["events", row.id])} columns=${[
        {name: "Tried", of: (row) => html`<${Time} at=${row.started_at} />`},
        {name: "Event", of: (row) => html`<${Id} id=${row.id} />`},
        {name: "Type", class: "wide", of: (row) => html`<bdi>${short(`${row.source ?? "no longer stored"} ${row.type ?? ""}`, 70)}</bdi>`},
        {name: "Try", class: "number", of: (row) => row.number},
        {name: "Now", of: (row) => row.status && html`<${Badge} kind=${row.status} />`},
      ]} />`;
};
