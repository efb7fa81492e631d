// The console: who is there, where one is, and the keys that work everywhere.

import {html, render, useEffect, useErrorBoundary, useRef, useState} from "./html.js";
import {signIn, signOut, who} from "./api.js";
import {plain} from "./format.js";
import {Asked, go, hrefTo, nextTimes, Problem, remember, remembered, Said, say, Session, timesAre, useAction, usePlace} from "./ui.js";

// Each page's module is fetched when it is first gone to.
const PAGES = {
  overview: {name: "Overview", key: "o", load: async () => (await import("./overview.js")).Overview},
  events: {name: "Events", key: "e", load: async () => (await import("./events.js")).Events,
    one: async () => (await import("./event.js")).Event},
  issues: {name: "Issues", key: "i", load: async () => (await import("./issues.js")).Issues,
    one: async () => (await import("./issues.js")).Issue},
  "dead-letters": {name: "Dead letters", key: "d", load: async () => (await import("./replays.js")).DeadLetters},
  replays: {name: "Replays", key: "p", load: async () => (await import("./replays.js")).Replays,
    one: async () => (await import("./replays.js")).Replay},
  rejected: {name: "Refused", key: "x", load: async () => (await import("./refused.js")).Rejected,
    one: async () => (await import("./refused.js")).RejectedOne},
  duplicates: {name: "Repetitions", key: "u", load: async () => (await import("./refused.js")).Duplicates,
    one: async () => (await import("./refused.js")).Duplicate},
  sources: {name: "Sources", key: "s", load: async () => (await import("./sources.js")).Sources},
  missed: {name: "Missed", key: "m", load: async () => (await import("./reconcile.js")).Reconciliations,
    one: async () => (await import("./reconcile.js")).Reconciliation},
  drift: {name: "Drift", key: "f", load: async () => (await import("./sources.js")).Drift},
  ledger: {name: "Ledger", key: "l", load: async () => (await import("./upkeep.js")).Ledger},
  storage: {name: "Storage", key: "t", load: async () => (await import("./upkeep.js")).Storage},
};

const THEMES = ["system", "light", "dark"];
const wear = (theme) => {
  if (theme === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  remember("theme", theme);
};
const nextTheme = () => {
  const next = THEMES[(THEMES.indexOf(remembered("theme", "system")) + 1) % THEMES.length];
  wear(next);
  say(`Theme: ${next}.`);
};

// A ready link brings its token behind the "#", where no server sees it, and not for longer than this.
const broughtToken = () => {
  const brought = /^#token=([\w-]+)$/.exec(location.hash)?.[1];
  if (brought) history.replaceState(null, "", location.pathname);
  return brought;
};

// Whoever is signed in stays so, whatever link they follow.
const enter = async (brought) => {
  try {
    return await who();
  } catch (error) {
    if (error.status !== 401 || !brought) throw error;
    return signIn(brought);
  }
};

const App = () => {
  const [caller, setCaller] = useState(undefined);
  const [error, setError] = useState(null);
  const timer = useRef(null);
  useEffect(() => {
    const begin = async (brought) => {
      clearTimeout(timer.current);
      try {
        setCaller(await enter(brought));
        setError(null);
      } catch (wrong) {
        setCaller(null);
        setError(wrong.status === 401 && !brought ? null : wrong);
        if (wrong.passes) timer.current = setTimeout(() => begin(brought), 5000);
      }
    };
    begin(broughtToken());
    const followed = () => {
      const brought = broughtToken();
      if (!brought) return;
      dispatchEvent(new HashChangeEvent("hashchange"));
      begin(brought);
    };
    addEventListener("hashchange", followed);
    const left = () => {
      setCaller((before) => {
        if (before) setError({message: "The session is over: sign in again. What you were looking at comes back."});
        return null;
      });
    };
    addEventListener("signed-out", left);
    return () => {
      clearTimeout(timer.current);
      removeEventListener("hashchange", followed);
      removeEventListener("signed-out", left);
    };
  }, []);
  if (caller === undefined) return html`<main class="login" aria-busy="true"></main>`;
  if (caller === null) {
    return html`<${Login} error=${error} enter=${(found) => {
      clearTimeout(timer.current);
      setError(null);
      setCaller(found);
    }} />`;
  }
  return html`<${Session.Provider} value=${caller}><${Shell} caller=${caller} leave=${async () => {
    await signOut();
    setCaller(null);
  }} /><//>`;
};

const Login = ({error, enter}) => {
  const [token, setToken] = useState("");
  const [wrong, setWrong] = useState(null);
  const [act, busy] = useAction(async () => {
    try {
      enter(await signIn(token.trim()));
    } catch (refused) {
      setWrong(refused.status === 401 ? {message: "No such token: it may have been revoked, or copied in part."} : refused);
    }
  });
  return html`<main class="login">
    <form onSubmit=${(event) => {
      event.preventDefault();
      act();
    }}>
      <h1>Postern</h1>
      <${Problem} error=${wrong ?? error} />
      <label>Token<input type="password" name="token" autocomplete="current-password" required autofocus spellcheck="false"
        value=${token} onInput=${(event) => setToken(event.target.value)} placeholder="postern_…" /></label>
      <button type="submit" class="main" disabled=${busy || !token.trim()}>Sign in</button>
      <p class="muted">Make one with <code>postern tokens make NAME</code>; with <code>--role operate</code> it may change things
        as well. On your own machine <code>make run</code> prints a link that is ready.</p>
    </form></main>`;
};

const Shell = ({caller, leave}) => {
  const {steps} = usePlace();
  const [isHelp, setHelp] = useState(false);
  const [isMenu, setMenu] = useState(false);
  const [times, setTimes] = useState(timesAre());
  const name = Object.hasOwn(PAGES, steps[0]) ? steps[0] : "overview";
  useKeys(() => setHelp((before) => !before), () => setHelp(false));
  useEffect(() => {
    const changed = () => setTimes(timesAre());
    addEventListener("times", changed);
    return () => removeEventListener("times", changed);
  }, []);
  useEffect(() => {
    document.title = `${PAGES[name].name} – Postern`;
    setMenu(false);
    scrollTo(0, 0);
    document.querySelector("main")?.focus({preventScroll: true});
  }, [name, steps[1]]);
  const [signOutNow] = useAction(leave);
  return html`
    <a class="skip" href="#content" onClick=${(event) => {
      event.preventDefault();
      document.querySelector("main").focus();
    }}>To the content</a>
    <header>
      <a class="name" href=${hrefTo("overview")}>Postern</a>
      <button type="button" class="menu" aria-expanded=${isMenu} onClick=${() => setMenu(!isMenu)}>Menu</button>
      <nav class=${isMenu ? "is-open" : ""} aria-label="Pages">
        ${Object.entries(PAGES).map(([key, page]) => html`<a href=${hrefTo(key)} aria-current=${key === name ? "page" : undefined}
          title=${`g ${page.key}`}>${page.name}</a>`)}
      </nav>
      <div class="tools">
        <button type="button" class="quiet" title="How times are shown (z)" onClick=${nextTimes}>Times: ${times}</button>
        <button type="button" class="quiet" title="Light, dark, or as the system has it (t)" onClick=${nextTheme}>Theme</button>
        <button type="button" class="quiet" title="Keys (?)" onClick=${() => setHelp(true)}>Keys</button>
        <span class="muted caller">${plain(caller.name)}, ${caller.role === "operate" ? "may operate" : "may look"}</span>
        <button type="button" class="quiet" onClick=${signOutNow}>Sign out</button>
      </div>
    </header>
    <main id="content" tabindex="-1"><${Page} key=${`${name}/${steps[1] ?? ""}`} name=${name} id=${steps[1]} /></main>
    ${isHelp && html`<${Help} close=${() => setHelp(false)} />`}
    <${Asked} /><${Said} />`;
};

const Page = ({name, id}) => {
  const [found, setFound] = useState(null);
  const [error, setError] = useState(null);
  const load = () => {
    const page = PAGES[name];
    (id !== undefined && page.one ? page.one() : page.load()).then((component) => setFound(() => component), () =>
      setError({message: "This page could not be fetched: Postern does not answer, or was deployed anew. Load it again."}));
  };
  useEffect(load, []);
  const [broken] = useErrorBoundary();
  if (broken) {
    return html`<${Problem} error=${{message: `This page has a fault of its own: ${broken.message}`}} retry=${() => location.reload()} />`;
  }
  if (error) return html`<${Problem} error=${error} retry=${() => location.reload()} />`;
  return found ? html`<${found} id=${id} />` : html`<div class="waiting" aria-busy="true"></div>`;
};

// --- Keys

const KEYS = [
  ["/", "search"], ["j k", "next and previous row"], ["Enter", "open the row"], ["x", "choose the row"], ["r", "ask again"],
  ["← →", "in a chart, a time; with Shift a stretch"],
  ["t", "theme"], ["z", "times: ago, UTC, local"], ["?", "this help"], ["Esc", "close, or leave a field"],
  ...Object.values(PAGES).map((page) => [`g ${page.key}`, page.name]),
];

const Help = ({close}) => {
  useEffect(() => {
    const dialog = document.getElementById("help");
    dialog.showModal();
  }, []);
  return html`<dialog id="help" aria-labelledby="keys" onClose=${close}>
    <h2 id="keys">Keys</h2>
    <dl class="keys">${KEYS.map(([key, what]) => html`<div><dt><kbd>${key}</kbd></dt><dd>${what}</dd></div>`)}</dl>
    <p><label class="switch"><input type="checkbox" checked=${keysAreOn()} onChange=${(event) =>
      remember("keys", event.target.checked ? "on" : "off")} /> Keys of one letter</label></p>
    <form method="dialog"><button class="main" autofocus>Close</button></form></dialog>`;
};

const keysAreOn = () => remembered("keys", "on") === "on";

const rows = () => [...document.querySelectorAll("main tbody tr[tabindex]")];

const move = (by) => {
  const all = rows();
  if (!all.length) return;
  const at = all.indexOf(document.activeElement?.closest("tr"));
  const next = at < 0 ? (by > 0 ? 0 : all.length - 1) : Math.max(0, Math.min(all.length - 1, at + by));
  all[next].focus();
  all[next].scrollIntoView({block: "nearest"});
};

const useKeys = (toggleHelp, closeHelp) => {
  useEffect(() => {
    let went = 0;
    const press = (event) => {
      const typing = event.target.closest("input:not([type=checkbox]), textarea, select");
      if (event.key === "Escape") {
        closeHelp();
        if (typing && !document.querySelector(".offers")) typing.blur();
        return;
      }
      if (typing || !keysAreOn() || event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
      if (Date.now() - went < 1500) {
        went = 0;
        const page = Object.entries(PAGES).find(([, each]) => each.key === event.key);
        if (page) {
          event.preventDefault();
          go(hrefTo(page[0]));
          return;
        }
      }
      const act = {
        g: () => { went = Date.now(); },
        j: () => move(1),
        k: () => move(-1),
        x: () => document.activeElement?.closest("tr")?.querySelector("input[type=checkbox]")?.click(),
        r: () => { dispatchEvent(new Event("refresh")); say("Asked again."); },
        t: nextTheme,
        z: nextTimes,
        "?": toggleHelp,
        "/": () => {
          const field = document.getElementById("search");
          if (field) field.focus();
          else {
            go(hrefTo("events"));
            setTimeout(() => document.getElementById("search")?.focus(), 300);
          }
        },
      }[event.key];
      if (act) {
        event.preventDefault();
        act();
      }
    };
    addEventListener("keydown", press);
    return () => removeEventListener("keydown", press);
  }, []);
};

wear(remembered("theme", "system"));
render(html`<${App} />`, document.getElementById("postern"));
