// Deliveries that are no events: refused ones that were kept, and repetitions.

import {html, useEffect, useRef, useState} from "./html.js";
import {bytesOf, get, post, usePages, useQuery} from "./api.js";
import {count, number, plain, short} from "./format.js";
import {whyOf} from "./event.js";
import {Headers, Payload} from "./payload.js";
import {Action, ask, Empty, go, hrefTo, Id, Loaded, More, say, Table, Tabs, Time, useMayOperate, usePlace} from "./ui.js";

// What each reason means, and what one does about it.
const REASONS = {
  not_json: "The body is no JSON, though its content type says so.",
  not_utf8: "The body is not UTF-8.",
  schema: "The body does not fit the schema that the source has in sources.toml.",
  signature_mismatch: "The signature does not fit the body: a wrong secret, a rotated one, or somebody who has none.",
  signature_missing: "There was no signature: the sender is not set up to sign, or is a stranger.",
  header_missing: "A header that is signed was not there.",
  timestamp_stale: "Signed too long ago: sent again by somebody, or a clock that is wrong.",
  timestamp_in_future: "Signed in the future: a clock that is wrong.",
};

export const Rejected = () => {
  const {query} = usePlace();
  const pending = query.get("pending") !== "false";
  const refused = usePages("rejected", "rejected", {source: query.get("source"), pending, limit: 50}, {every: 30_000});
  return html`<h1>Refused deliveries</h1>
    <p class="muted">What was verified and then refused is kept always; of strangers’, a few, for sources with <code>quarantine</code>.</p>
    <${Tabs} name="pending" value=${String(pending)} label="Which" of=${[["true", "Not let through"], ["false", "All that are kept"]]} />
    <${Loaded} of=${refused}>${(found) => refused.rows.length
      ? html`<h2>By reason</h2>
          <${Table} caption="By reason" rows=${found.reasons} keyOf=${(row) => `${row.source} ${row.reason}`} columns=${[
            {name: "Source", of: (row) => html`<a href=${hrefTo("rejected", {source: row.source})}>${plain(row.source)}</a>`},
            {name: "Reason", class: "wide", of: (row) => html`<code>${plain(row.reason)}</code> <span class="muted">${REASONS[row.reason] ?? ""}</span>`},
            {name: "Kept", class: "number", of: (row) => number(row.count)},
            {name: "Last", of: (row) => html`<${Time} at=${row.last} />`},
          ]} />
          ${pending && html`<${VerifyAll} source=${query.get("source")} ended=${refused.refresh} />`}
          <h2>Deliveries ${query.get("source") && html`<span class="muted">of ${plain(query.get("source"))}</span> <a href=${hrefTo("rejected")}>all</a>`}</h2>
          <${Table} caption="Refused deliveries" rows=${refused.rows} open=${(row) => hrefTo(["rejected", row.id])} columns=${[
            {name: "Received", of: (row) => html`<${Time} at=${row.received_at} />`},
            {name: "Source", of: (row) => plain(row.source)},
            {name: "Reason", class: "wide", of: (row) => html`<code>${plain(row.reason)}</code>`},
            {name: "Verified", of: (row) => (row.verified ? "✓ its sender’s" : "nobody vouches")},
            {name: "Bytes", class: "number", of: (row) => number(row.bytes)},
            {name: "Id", of: (row) => html`<${Id} id=${row.id} href=${hrefTo(["rejected", row.id])} />`},
            {name: "", of: (row) => row.event_id && html`<a href=${hrefTo(["events", row.event_id])}>let through</a>`},
          ]} /><${More} of=${refused} />`
      : html`<${Empty} title="Nothing was refused and kept">
          ${query.get("source") && html`<p>of ${plain(query.get("source"))}. <a href=${hrefTo("rejected")}>Look at all sources</a></p>`}
          <p>To keep some of what strangers send, say <code>quarantine = true</code> for a source.</p><//>`}<//>`;
};

// What becomes of it is the same, however often it is asked for: the event has the id of what was refused.
const verifyAgain = (id, stale = false) => post(`rejected/${id}/reverify`, {stale});

const PAGE = 100;

// One after the other, for as long as somebody looks on.
const VerifyAll = ({source, ended}) => {
  const [at, setAt] = useState(null);
  const stopped = useRef(false);
  useEffect(() => () => {
    stopped.current = true;
  }, []);
  const work = async () => {
    stopped.current = false;
    const so = {looked: 0, through: 0};
    let next = {};
    try {
      while (next && !stopped.current) {
        const page = await get("rejected", {source, pending: true, limit: PAGE, ...next});
        for (const {id} of page.rejected) {
          if (stopped.current) break;
          const {outcome} = await verifyAgain(id);
          so.looked += 1;
          if (outcome === "let through") so.through += 1;
          setAt({...so});
        }
        next = page.next;
      }
      say(`${number(so.through)} of ${number(so.looked)} let through.`);
    } finally {
      setAt(null);
      ended();
    }
  };
  return html`<div class="row"><${Action} work=${work} title="Lets through what verifies with today’s secrets">Verify all again<//>
    ${at && html`<span class="muted" role="status">${number(at.looked)} verified again, ${number(at.through)} let through</span>
      <button type="button" onClick=${() => {
        stopped.current = true;
      }}>Stop</button>`}</div>`;
};

// What stands between backquotes, as code.
const withCode = (text) => text.split("`").map((part, at) => (at % 2 ? html`<code>${part}</code>` : part));

// Why it was refused, tried with the secrets of now and of before, and what can be done about it.
const Causes = ({of, changed}) => {
  const asked = useQuery(`rejected/${of.id}/causes`, {}, {skip: Boolean(of.event_id)});
  const [isOld, setOld] = useState(false);
  const again = (stale) => async () => {
    const sure = !stale || await ask({title: "Let it through, although it is too old?", yes: "Let it through",
      text: "Its signature is right, its time is not. A delivery that somebody recorded and sends again looks the same."});
    if (!sure) return;
    const {outcome, event_id: event} = await verifyAgain(of.id, stale);
    setOld(outcome.includes("timestamp_stale"));
    say(`${outcome[0].toUpperCase()}${outcome.slice(1)}.`, event ? "done" : "wrong");
    asked.refresh();
    changed();
  };
  return html`<section class="outcome" aria-label="Why">
    <div class="row"><h2>Why</h2><span class="space"></span>
      ${!of.event_id && html`<${Action} work=${again(false)}>Verify again<//>
        ${isOld && html`<${Action} work=${again(true)}>Let it through, though too old …<//>`}`}</div>
    ${of.event_id ? html`<p>It was let through.</p>` : html`<${Loaded} of=${asked} lines=${2}>${({causes}) => html`<ul class="causes">
      ${causes.map((each) => html`<li>${withCode(plain(each.sentence))} <span class="muted"><code>${plain(each.cause)}</code></span></li>`)}</ul>`}<//>`}
  </section>`;
};

export const RejectedOne = ({id}) => {
  const mayOperate = useMayOperate();
  const one = useQuery(`rejected/${encodeURIComponent(id)}`, {}, {skip: !mayOperate});
  const crumbs = html`<p class="crumbs"><a href=${hrefTo("rejected")}>Refused deliveries</a></p>`;
  if (!mayOperate) {
    return html`${crumbs}<${Empty} title="Its bytes are for who may operate"><p>Nobody vouches for what is in them.</p><//>`;
  }
  return html`${crumbs}<${Loaded} of=${one} name="A refused delivery" lines=${10}>${({rejected: found}) => html`
    <h1><code>${plain(found.reason)}</code></h1>
    <p>${REASONS[found.reason] ?? ""}</p>
    <dl class="facts">
      <div><dt>Received</dt><dd><${Time} at=${found.received_at} /></dd></div>
      <div><dt>Source</dt><dd>${plain(found.source)}</dd></div>
      <div><dt>Verified</dt><dd>${found.verified ? "Its signature was right when it came." : "No: nobody vouches for it."}</dd></div>
      <div><dt>Request</dt><dd><code><bdi>${plain(found.method)} ${plain(found.url)}</bdi></code></dd></div>
      ${found.note && html`<div><dt>Note</dt><dd>${plain(found.note)}</dd></div>`}
      ${found.event_id && html`<div><dt>Let through as</dt><dd><${Id} id=${found.event_id} /></dd></div>`}
    </dl>
    <${Causes} of=${found} changed=${one.refresh} />
    <${Payload} bytes=${bytesOf(found.body)} name="Body" />
    <${Headers} of=${found.headers} />`}<//>`;
};

const WHICH = [["all", "All"], ["same_id", "Same id, same bytes"], ["same_id_other_bytes", "Same id, other bytes"], ["same_bytes", "Same bytes"]];

export const Duplicates = () => {
  const {query} = usePlace();
  const why = query.get("why") ?? "all";
  const duplicates = usePages("duplicates", "duplicates",
    {why: why === "all" ? null : why, source: query.get("source"), limit: 50}, {every: 30_000});
  return html`<h1>Repetitions</h1>
    <p class="muted">Accepted deliveries that were taken for an event which was there already. None of them counted twice.</p>
    <${Tabs} name="why" value=${why} label="Why" of=${WHICH} />
    <${Loaded} of=${duplicates}>${(found) => duplicates.rows.length
      ? html`<p class="row">${found.reasons.map((row) => html`<span><a href=${hrefTo("duplicates", {source: row.source, why})}>${plain(row.source)}</a>${" "}
            <span class="muted">${number(row.count)} × ${whyOf(row.why)}</span></span>`)}</p>
          <${Table} caption="Repetitions" rows=${duplicates.rows} open=${(row) => hrefTo(["duplicates", row.id])} columns=${[
            {name: "Received", of: (row) => html`<${Time} at=${row.received_at} />`},
            {name: "Source", of: (row) => plain(row.source)},
            {name: "Type", class: "wide", of: (row) => html`<bdi>${short(row.type, 50)}</bdi>`},
            {name: "Why", of: (row) => whyOf(row.why)},
            {name: "Of", of: (row) => html`<${Id} id=${row.event_id} />`},
            {name: "", of: (row) => row.accepted_at && "let through"},
          ]} /><${More} of=${duplicates} />`
      : html`<${Empty} title="No repetitions"><p>${(query.get("source") || query.get("why")) && html`<a href=${hrefTo("duplicates")}>Look at all</a> `}Providers that get no answer in time send again. Those deliveries are listed here.</p><//>`}<//>`;
};

export const Duplicate = ({id}) => {
  const one = useQuery(`duplicates/${encodeURIComponent(id)}`);
  const accept = async () => {
    const sure = await ask({title: "Make it an event of its own?", yes: "Let it through",
      text: "It gets a row and runs the handlers, as if nothing had come before it."});
    if (!sure) return;
    const {event_id: event} = await post(`duplicates/${id}/accept`);
    say("It is queued as an event of its own.");
    go(hrefTo(["events", event]));
  };
  return html`<p class="crumbs"><a href=${hrefTo("duplicates")}>Repetitions</a></p>
    <${Loaded} of=${one} name="A repetition" lines=${8}>${({duplicate: found}) => html`
      <h1>A repetition <span class="muted">${whyOf(found.why)}</span></h1>
      <div class="row">${found.accepted_at
        ? html`<a class="button" href=${hrefTo(["events", found.id])}>See the event it became</a>`
        : html`<${Action} work=${accept}>Let it through …<//>`}</div>
      <dl class="facts">
        <div><dt>Received</dt><dd><${Time} at=${found.received_at} /></dd></div>
        <div><dt>Repeats</dt><dd><${Id} id=${found.event_id} /></dd></div>
        <div><dt>Source</dt><dd>${plain(found.source)} <bdi>${short(found.type, 80)}</bdi></dd></div>
        <div><dt>Identity</dt><dd><code><bdi>${plain(found.dedup_key)}</bdi></code></dd></div>
        ${found.accepted_at && html`<div><dt>Let through</dt><dd><${Time} at=${found.accepted_at} /></dd></div>`}
      </dl>
      ${found.same_bytes ? html`<p class="muted">It had the event’s own bytes.</p>`
        : found.body !== null ? html`<${Payload} bytes=${bytesOf(found.body)} name="Body" />`
          : html`<p class="muted">Its bytes were not kept, or are too many to be shown.</p>`}
      ${found.headers && html`<${Headers} of=${found.headers} />`}`}<//>`;
};
