// What a provider sent and did not arrive: compared with its own history, in steps that whoever watches has done.

import {html, useState} from "./html.js";
import {post, usePages, useQuery} from "./api.js";
import {number, plain, short} from "./format.js";
import {goesOnByItself, useRest, useSteps} from "./steps.js";
import {Action, ask, Empty, go, hrefTo, Id, Loaded, More, Problem, say, Table, Time, useMayOperate, usePlace} from "./ui.js";

const STEP_EVERY = 300;
const LOOK_EVERY = 3_000;
const SHOWN = 500;
const SINCE = [["", "all that it remembers"], ["2", "2 hours"], ["24", "a day"], ["72", "3 days"]];

export const Reconciliations = () => {
  const mayOperate = useMayOperate();
  const runs = usePages("reconciliations", "reconciliations", {limit: 30}, {every: 10_000});
  return html`<h1>What we missed</h1>
    <p class="muted">A provider’s own history, compared with what is here. What is missing is fetched, and is the same event if it arrives after all.</p>
    ${mayOperate && html`<${Begin} />`}
    <h2>So far</h2>
    <${Loaded} of=${runs}>${() => runs.rows.length
      ? html`<${Table} caption="Comparisons" rows=${runs.rows} open=${(row) => hrefTo(["missed", row.id])} columns=${[
          {name: "Begun", of: (row) => html`<${Time} at=${row.started_at} />`},
          {name: "Source", of: (row) => html`<a href=${hrefTo(["missed", row.id])}>${plain(row.source)}</a>`},
          {name: "State", class: "wide", of: (row) => html`${stateOf(row)} <span class="muted"><bdi>${short(row.error, 80)}</bdi></span>`},
          {name: "Listed", class: "number", of: (row) => number(row.listed)},
          {name: "Never arrived", class: "number", of: (row) => number(row.missing)},
          {name: "Refused", class: "number", of: (row) => number(row.refused)},
          {name: "Dead", class: "number", of: (row) => number(row.dead)},
          {name: "Fetched", class: "number", of: (row) => number(row.fetched)},
        ]} /><${More} of=${runs} />`
      : html`<${Empty} title="Nothing was compared yet"><p>GitHub and Stripe remember what they sent. A source says where, with
          <code>reconcile</code> in <code>sources.toml</code>; with <code>hourly = true</code> it is compared every hour.</p><//>`}<//>`;
};

const stateOf = (run) => (run.only_looks && run.state === "done" ? "looked" : run.state);
const runs = (run) => run?.state === "listing" || run?.state === "fetching";

const Begin = () => {
  const {query} = usePlace();
  const [source, setSource] = useState(query.get("source") ?? "");
  const [hours, setHours] = useState("");
  const begin = (looks) => async () => {
    const since = hours ? new Date(Date.now() - Number(hours) * 3_600_000).toISOString() : null;
    const {reconciliation} = await post("reconciliations", {source: source.trim(), since, only_looks: looks});
    goesOnByItself(reconciliation.id);
    go(hrefTo(["missed", reconciliation.id]));
  };
  return html`<div class="row">
    <label>Source <input type="text" name="source" autocomplete="off" spellcheck="false" value=${source} placeholder="github"
      onInput=${(event) => setSource(event.target.value)} /></label>
    <label>Since <select value=${hours} onChange=${(event) => setHours(event.target.value)}>
      ${SINCE.map(([value, name]) => html`<option value=${value}>${name}</option>`)}</select></label>
    <${Action} work=${begin(true)} disabled=${!source.trim()}>Look<//>
    <${Action} kind="main" work=${begin(false)} disabled=${!source.trim()}>Fetch what is missing<//></div>`;
};

export const Reconciliation = ({id}) => {
  const mayOperate = useMayOperate();
  const [rests, setRests] = useRest(id);
  const found = useQuery(`reconciliations/${encodeURIComponent(id)}`, {}, {every: rests ? LOOK_EVERY : 0});
  const gaps = useQuery(`reconciliations/${encodeURIComponent(id)}/gaps`, {limit: SHOWN});
  const [step, setStep] = useState({run: null, held: null, error: null});
  const known = (rests ? found.data?.reconciliation : null) ?? step.run ?? found.data?.reconciliation;
  const goesOn = mayOperate && !rests && runs(known);
  useSteps(`reconciliations/${id}/advance`, goesOn, {
    first: STEP_EVERY,
    answered: ({reconciliation, held, seconds}) => {
      setStep({run: reconciliation, held, error: null});
      if (!runs(reconciliation)) gaps.refresh();
      return held ? (seconds ?? 10) * 1000 : STEP_EVERY;
    },
    failed: (error) => {
      setStep((before) => ({...before, error}));
      if (!error.passes) setRests(true);
    },
  });
  const turn = (rest) => {
    setStep({run: null, held: null, error: null});
    setRests(rest);
    found.refresh();
    gaps.refresh();
  };
  const cancel = async () => {
    if (!(await ask({title: "Cancel it?", text: "What was fetched stays.", yes: "Cancel it", dangerous: true}))) return;
    await post(`reconciliations/${id}/cancel`);
    turn(true);
    say("Cancelled.");
  };
  return html`<p class="crumbs"><a href=${hrefTo("missed")}>What we missed</a></p>
    <${Loaded} of=${found} name="A comparison" lines=${6}>${() => html`
      <h1>${plain(known.source)} <span class="muted">${stateOf(known)}</span></h1>
      <p>${number(known.listed)} listed by the provider, sent since <${Time} at=${known.since} />.
        ${step.held && html` <span class="muted">${plain(step.held)}</span>`}</p>
      ${known.error && html`<p class="problem" role="alert">${plain(known.error)}</p>`}
      <${Problem} error=${step.error} />
      <dl class="facts">
        <div><dt>Never arrived</dt><dd>${number(known.missing)}</dd></div>
        <div><dt>Arrived, refused</dt><dd>${number(known.refused)}</dd></div>
        <div><dt>Arrived, dead</dt><dd>${number(known.dead)}${known.dead > 0 && html` <a href=${hrefTo("events", {q: `source:${known.source} status:dead`})}>which</a>`}</dd></div>
        <div><dt>Fetched</dt><dd>${number(known.fetched)}</dd></div>
        ${known.arrived > 0 && html`<div><dt>Arrived meanwhile</dt><dd>${number(known.arrived)}</dd></div>`}
        ${known.no_event > 0 && html`<div><dt>Bring no event</dt><dd>${number(known.no_event)}</dd></div>`}
        ${known.failed > 0 && html`<div><dt>Not to be had</dt><dd>${number(known.failed)}</dd></div>`}
        <div><dt>Begun</dt><dd><${Time} at=${known.started_at} /></dd></div>
      </dl>
      ${runs(known) && mayOperate && html`<div class="row">
        <${Action} kind="main" work=${() => turn(!rests)}>${rests ? "Go on" : "Rest"}<//>
        <${Action} kind="danger" work=${cancel}>Cancel …<//>
        <span class="muted">${rests ? "It rests, unless somebody has it go on elsewhere." : "It goes on while this page is open."}</span></div>`}
      <h2>Gaps</h2>
      <${Loaded} of=${gaps} lines=${3}>${({gaps: rows}) => rows.length
        ? html`<${Table} caption="Gaps" rows=${rows} keyOf=${(row) => row.key}
            open=${(row) => (row.event_id ? hrefTo(["events", row.event_id]) : hrefTo("events", {q: `id:${row.key}`}))} columns=${[
              {name: "Sent", of: (row) => html`<${Time} at=${row.happened_at} />`},
              {name: "Type", of: (row) => html`<bdi>${short(row.type, 40)}</bdi>`},
              {name: "What", of: (row) => row.kind},
              {name: "Became", of: (row) => (row.state === "no_event" ? "no event" : row.state)},
              {name: "The provider’s id", class: "wide", of: (row) => html`<code><bdi>${short(row.key, 60)}</bdi></code> <span class="muted">${plain(row.note ?? "")}</span>`},
              {name: "Event", of: (row) => row.event_id && html`<${Id} id=${row.event_id} />`},
            ]} />${rows.length >= SHOWN && html`<p class="muted">The first ${number(SHOWN)}; <code>postern reconcile --gaps ${id}</code> has all.</p>`}`
        : html`<${Empty} title="None"><p>Or a later comparison found the same, and has them.</p><//>`}<//>`}<//>`;
};
