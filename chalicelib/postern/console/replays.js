// Processing again: a plan with its count, then steps that whoever watches has done; and the dead letters.

import {html, useEffect, useMemo, useState} from "./html.js";
import {post, usePages, useQuery} from "./api.js";
import {count, number, plain, short} from "./format.js";
import {filtersOf} from "./search.js";
import {goesOnByItself, useRest, useSteps} from "./steps.js";
import {Action, ask, Badge, Empty, go, hrefTo, Id, Loaded, More, Problem, say, Table, Time, useMayOperate, usePlace} from "./ui.js";

const STEP_EVERY = 1_000;
const LOOK_EVERY = 3_000;
// Of one replay, as the server takes it.
const MOST = 100_000;
const RATES = [1, 10, 50, 100];

export const Replays = () => {
  const {query} = usePlace();
  const replays = usePages("replays", "replays", {limit: 30}, {every: 10_000});
  return html`<h1>Replays</h1>
    <${Plan} text=${query.get("q") ?? ""} />
    <h2>So far</h2>
    <${Loaded} of=${replays}>${() => replays.rows.length
      ? html`<${Table} caption="Replays" rows=${replays.rows} open=${(row) => hrefTo(["replays", row.id])} columns=${[
          {name: "Begun", of: (row) => html`<${Time} at=${row.created_at} />`},
          {name: "What", class: "wide", of: (row) => html`<a href=${hrefTo(["replays", row.id])}>${row.kind}</a>
            <span class="muted"><bdi>${short(filterText(row.filter), 80)}</bdi></span>`},
          {name: "State", of: (row) => row.state},
          {name: "Queued", class: "number", of: (row) => `${number(row.moved)} of ${number(row.total)}`},
          {name: "Failed", class: "number", of: (row) => number(row.failed)},
        ]} /><${More} of=${replays} />`
      : html`<${Empty} title="Nothing was processed again yet"><p>Name some events above, or choose them in the list of events.</p><//>`}<//>`;
};

const filterText = (filter) => Object.entries(filter ?? {})
  .filter(([, value]) => value !== null)
  .map(([name, value]) => `${name}: ${typeof value === "object" ? JSON.stringify(value) : value}`).join(", ");

const Plan = ({text}) => {
  const [typed, setTyped] = useState(text);
  const [rate, setRate] = useState(10);
  const [plan, setPlan] = useState(null);
  const [error, setError] = useState(null);
  const {filters, problems} = useMemo(() => filtersOf(text), [text]);
  useEffect(() => setTyped(text), [text]);
  useEffect(() => {
    let left = false;
    setPlan(null);
    setError(null);
    if (!text || problems.length) return undefined;
    // What comes while the plan is looked at is not of it.
    const meant = {...filters, until: filters.until ?? new Date().toISOString()};
    post("replays/plan", meant).then((found) => left || setPlan({...found, meant}), (wrong) => left || setError(wrong));
    return () => {
      left = true;
    };
  }, [text]);
  const start = async () => {
    const sure = await ask({
      title: `Process ${count(plan.count, "event")} again?`,
      text: `${rate} a second; the handlers of each run once more. You can cancel it, and go on later.`,
      yes: "Process again",
      type: plan.count > 1 ? plan.count : null,
    });
    if (!sure) return;
    const {replay} = await post("replays", {...plan.meant, rate, most: plan.count});
    goOnWith(replay);
  };
  return html`<form class="search" onSubmit=${(event) => {
      event.preventDefault();
      go(hrefTo("replays", {q: typed.trim()}));
    }}>
    <input type="search" id="search" aria-label="Which events" autocomplete="off" spellcheck="false" value=${typed}
      placeholder="Which events? source:stripe status:dead since:7d" onInput=${(event) => setTyped(event.target.value)} />
    <button type="submit" class="main">Plan</button></form>
    ${problems.map((problem) => html`<p class="problem" role="alert">${plain(problem)}</p>`)}
    <${Problem} error=${error} />
    ${text && !problems.length && !plan && !error && html`<p class="muted" aria-busy="true">Counting …</p>`}
    ${plan && html`<section class="outcome" aria-label="Plan">
      <div class="row"><strong>${count(plan.count, "event")}</strong>
        ${Object.entries(plan.by_status).map(([status, many]) => html`<${Badge} kind=${status}>${number(many)} ${status}<//>`)}
        <span class="space"></span>
        ${plan.count > MOST && html`<span class="bad">More than ${number(MOST)} at once are not taken: narrow it down.</span>`}
        ${plan.count > 0 && plan.count <= MOST && html`<label>Rate <select value=${rate} onChange=${(event) => setRate(Number(event.target.value))}>
            ${RATES.map((each) => html`<option value=${each}>${each} a second</option>`)}</select></label>
          <${Action} kind="main" work=${start}>Process them again …<//>`}</div>
      ${plan.sample.length > 0 && html`<p class="muted">Some of them:</p>
        <${Table} caption="Some of them" rows=${plan.sample} open=${(row) => hrefTo(["events", row.id])} columns=${[
          {name: "Received", of: (row) => html`<${Time} at=${row.received_at} />`},
          {name: "Source", of: (row) => plain(row.source)},
          {name: "Type", class: "wide", of: (row) => html`<bdi>${short(row.type, 60)}</bdi>`},
          {name: "Status", of: (row) => html`<${Badge} kind=${row.status} />`},
          {name: "Id", of: (row) => html`<${Id} id=${row.id} />`},
        ]} />`}</section>`}`;
};

const goOnWith = (replay) => {
  goesOnByItself(replay.id);
  go(hrefTo(["replays", replay.id]));
};

export const processAgain = async (ids) => {
  const {replay} = await post("replays", {ids});
  say(`A replay of ${count(ids.length, "event")} has begun.`);
  goOnWith(replay);
};

export const Replay = ({id}) => {
  const mayOperate = useMayOperate();
  const [rests, setRests] = useRest(id);
  const found = useQuery(`replays/${encodeURIComponent(id)}`, {}, {every: rests ? LOOK_EVERY : 0});
  const [step, setStep] = useState({replay: null, held: null, error: null});
  const known = (rests ? found.data?.replay : null) ?? step.replay ?? found.data?.replay;
  const goesOn = mayOperate && !rests && known?.state === "running";
  const steps = known && `${known.kind === "redrive" ? "redrives" : "replays"}/${id}`;
  useSteps(`${steps}/advance`, goesOn, {
    first: 200,
    answered: ({replay, held}) => {
      setStep({replay, held: held ?? null, error: null});
      return STEP_EVERY;
    },
    failed: (error) => {
      setStep((before) => ({...before, error}));
      if (!error.passes) setRests(true);
    },
  });
  const {held, error} = step;
  const rest = () => {
    setStep({replay: null, held: null, error: null});
    setRests(!rests);
    found.refresh();
  };
  const cancel = async () => {
    if (!(await ask({title: "Cancel it?", text: "What was queued is still tried; the rest is left alone.", yes: "Cancel it", dangerous: true}))) return;
    await post(`${steps}/cancel`);
    setStep({replay: null, held: null, error: null});
    setRests(true);
    found.refresh();
    say("Cancelled.");
  };
  return html`<p class="crumbs"><a href=${hrefTo("replays")}>Replays</a></p>
    <${Loaded} of=${found} name="A replay" lines=${6}>${() => html`
      <h1>${known.kind === "redrive" ? "Redrive" : "Replay"} <span class="muted">${known.state}</span></h1>
      <p class="muted"><bdi>${plain(filterText(known.filter))}</bdi></p>
      <progress max=${Math.max(1, known.total)} value=${settled(known)} aria-label="Progress"></progress>
      <p>${number(settled(known))} of ${number(known.total)} settled, ${number(known.moved)} queued, at ${known.rate} a second.
        ${held && html` <span class="muted">Held: ${plain(held)}</span>`}</p>
      <${Problem} error=${error} />
      <dl class="facts">
        ${Object.entries(known.states ?? {}).map(([state, many]) => html`<div><dt>${state}</dt><dd>${number(many)}</dd></div>`)}
        <div><dt>Begun</dt><dd><${Time} at=${known.created_at} /></dd></div>
        ${known.finished_at && html`<div><dt>Ended</dt><dd><${Time} at=${known.finished_at} /></dd></div>`}
      </dl>
      ${known.state === "running" && html`<div class="row">
        <${Action} kind="main" work=${rest}>${rests ? "Go on" : "Rest"}<//>
        <${Action} kind="danger" work=${cancel}>Cancel …<//>
        <span class="muted">${rests ? "It rests, unless somebody has it go on elsewhere; nothing is lost." : "It goes on while this page is open."}</span></div>`}
      ${known.failures?.length > 0 && html`<h2>Failed</h2>
        <${Table} caption="Failed" rows=${known.failures} open=${(row) => hrefTo(["events", row.id])} columns=${[
          {name: "Event", of: (row) => html`<${Id} id=${row.id} />`},
          {name: "Tries", class: "number", of: (row) => row.tries},
          {name: "Error", class: "wide", of: (row) => html`<bdi>${short(row.error, 200)}</bdi>`},
        ]} />`}`}<//>`;
};

// A redrive moves letters; what becomes of their events is theirs.
const settled = (replay) => replay.kind === "redrive"
  ? replay.moved
  : Object.entries(replay.states ?? {}).filter(([state]) => state !== "queued" && state !== "waiting")
      .reduce((sum, [, many]) => sum + many, 0);

// As many at a time as one request has room for, until there are no more of them.
const repeated = async (path, most) => {
  let done = 0;
  while (done < most) {
    const {deleted} = await post(path, {most: Math.min(most - done, 1000)});
    if (!deleted) break;
    done += deleted;
  }
  return done;
};

// --- Dead letters: messages that SQS or Postern gave up, in their queue

export const DeadLetters = () => {
  const mayOperate = useMayOperate();
  const letters = useQuery("dead-letters", {limit: 50}, {skip: !mayOperate});
  if (!mayOperate) {
    return html`<h1>Dead letters</h1><${Empty} title="Your token may look at rows only">
      <p>To look into the queue hides its letters for a moment, and so needs the role <code>operate</code>. What was given up has a row, too:
        <a href=${hrefTo("events", {q: "status:dead"})}>events that are dead</a>.</p><//>`;
  }
  const redrive = (given, said) => async () => {
    const {replay} = await post("redrives", given);
    say(said);
    goOnWith(replay);
  };
  const all = async () => {
    const {waiting} = letters.data;
    const sure = await ask({title: `Move ${count(waiting, "letter")} back to the queue?`, yes: "Move them back", type: waiting > 1 ? waiting : null,
      text: "Each event gets a new budget of tries. What is processed already is left alone."});
    if (sure) await redrive({all: true, most: waiting}, "They move back.")();
  };
  const purge = async () => {
    const {waiting} = letters.data;
    const sure = await ask({title: `Delete ${count(waiting, "letter")}?`, yes: "Delete them", type: waiting, dangerous: true,
      text: "Events that have a row keep it, and can be processed again from it. What has no row is gone for good."});
    if (!sure) return;
    say(`${count(await repeated("dead-letters/purge", waiting), "letter")} deleted.`);
    letters.refresh();
  };
  const sweep = async () => {
    const deleted = await repeated("dead-letters/sweep", letters.data.waiting);
    say(deleted ? `${count(deleted, "letter")} of processed events deleted.` : "None of those that SQS showed is of an event that was processed since.");
    letters.refresh();
  };
  return html`<h1>Dead letters</h1>
    <p class="muted">Messages that were given up. They are kept for 14 days; their events have rows besides.</p>
    <${Loaded} of=${letters}>${(found) => found.waiting || found.letters.length
      ? html`<div class="row"><strong>${count(found.waiting, "letter")}</strong><span class="space"></span>
            <${Action} kind="main" work=${all}>Move all back …<//>
            <${Action} work=${sweep} title="Deletes the letters of events that were processed since">Sweep<//>
            <${Action} kind="danger" work=${purge}>Delete all …<//></div>
          <${Table} caption="Dead letters" rows=${found.letters} keyOf=${(row) => row.id ?? row.sent_at}
            open=${(row) => (row.id ? hrefTo(["events", row.id]) : hrefTo("dead-letters"))} columns=${[
              {name: "Sent", of: (row) => html`<${Time} at=${row.sent_at} />`},
              {name: "Source", of: (row) => plain(row.source ?? "unreadable")},
              {name: "Type", class: "wide", of: (row) => html`<bdi>${short(row.type, 50)}</bdi>`},
              {name: "Row", of: (row) => (row.status ? html`<${Badge} kind=${row.status} />` : "none")},
              {name: "Why", class: "error", of: (row) => html`<bdi>${short(row.reason, 120)}</bdi>`},
              {name: "Id", of: (row) => row.id && html`<${Id} id=${row.id} />`},
              {name: "", of: (row) => row.id && html`<${Action} work=${redrive({id: row.id}, "It moves back.")}>Move back<//>`},
            ]} />`
      : html`<${Empty} title="No dead letters"><p>What fails more often than the policy allows ends here, and an alarm rings.</p><//>`}<//>`;
};
