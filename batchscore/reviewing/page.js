"use strict";
(() => {
  const AHEAD = 20, FEW = 6, LOOK_AGAIN_MS = 2000, MOST_DIGITS = 8;
  const WORDS = {
    given: "the given label is right", prediction: "the prediction is right", other: "another label is right",
    none: "none of the labels is right", unsure: "nobody can tell",
  };
  const token = new URLSearchParams(location.search).get("token") || "";
  const at = id => document.getElementById(id);
  const state = { run: null, tab: "worst", row: null, ahead: [], isEnd: false, fetching: null, isBusy: false, turn: 0, last: 0, ours: new Set(), counts: null };

  // ------------------------------------------------------------------------------------------------------- the server

  const me = (() => {
    const fresh = () => Array.from(crypto.getRandomValues(new Uint8Array(12)), each => each.toString(16).padStart(2, "0")).join("");
    try {
      const known = localStorage.getItem("batchscore-review") || fresh();
      localStorage.setItem("batchscore-review", known);
      return known;
    } catch { return fresh(); }
  })();

  async function ask(path, body) {
    const headers = { Authorization: `Bearer ${token}` };
    const options = { headers, cache: "no-store", credentials: "omit", referrerPolicy: "no-referrer" };
    if (body) {
      headers["Content-Type"] = "application/json";
      Object.assign(options, { method: "POST", body: JSON.stringify(body) });
    }
    let answer;
    try { answer = await fetch(path, options); } catch { throw new Error("The server does not answer. Is batchscore review still running?"); }
    if (answer.status === 403) throw new Error("The server does not know this page any more. Open the address that it printed.");
    const value = await answer.json();
    if (!answer.ok) throw new Error(value.error);
    return value;
  }

  function wanted(more) {
    const asked = new URLSearchParams({ tab: state.tab, ...more });
    for (const name of ["pair", "slice", "file", "text", "reviewed"])
      if (at(name).value && !(name in more)) asked.set(name, at(name).value);
    for (const [name, value] of [...asked]) if (value === "") asked.delete(name);
    return `/api/rows?${asked}`;
  }

  // --------------------------------------------------------------------------------------------------------- the rows

  async function begin(after = -1) {
    const turn = ++state.turn;
    state.ahead = []; state.isEnd = false; state.fetching = null;
    const found = await ask(wanted({ after, most: AHEAD, count: 1 }));
    if (turn !== state.turn) return;
    state.counts = found.counts; state.row = null;
    take(found.rows);
    show(state.ahead.shift() || null);
  }

  function take(rows) {
    state.isEnd = rows.length === 0;
    const known = new Set(state.ahead.map(row => row.key));
    state.ahead.push(...rows.filter(row => !known.has(row.key) && row.key !== state.row?.key));
  }

  function fetchAhead() {
    if (state.isEnd || state.ahead.length > FEW || state.fetching || !state.row) return state.fetching;
    const turn = state.turn, after = (state.ahead.at(-1) || state.row).place;
    state.fetching = ask(wanted({ after, most: AHEAD })).then(found => {
      if (turn === state.turn) take(found.rows);
    }).finally(() => { if (turn === state.turn) state.fetching = null; });
    return state.fetching;
  }

  async function next() {
    if (!state.ahead.length && state.row) await fetchAhead();
    if (state.ahead.length) show(state.ahead.shift());
    else if (state.row && at("reviewed").value === "no") await begin();
    else say("That was the last row.");
  }

  async function previous() {
    if (!state.row) return begin();
    const found = await ask(wanted({ before: state.row.place, most: 1, reviewed: "" }));
    if (!found.rows.length) return say("That is the first row.");
    turnTo(found.rows[0]);
  }

  function turnTo(row) {
    ++state.turn; state.ahead = []; state.isEnd = false; state.fetching = null;
    show(row);
  }

  function isBlind() { return state.tab === "drawn" && state.run.blind && !state.row?.verdict; }

  function show(row) {
    state.row = row;
    at("row").hidden = !row; at("nothing").hidden = !!row;
    closeChooser();
    for (const button of at("bar").querySelectorAll("button")) button.disabled = !row && button.id !== "undo" && button.id !== "previous";
    if (row) {
      const put = (id, text) => { at(id).textContent = text; };
      const blind = isBlind(), both = row.given !== null && row.given === row.predicted;
      put("given", row.given === null ? "nothing" : row.given); put("predicted", row.predicted === null ? "nothing" : row.predicted);
      put("sure", row.probability === null ? "" : ` (${(100 * row.probability).toFixed(1)} %)`);
      at("labels").hidden = blind; at("issue").hidden = !row.is_issue;
      put("count", state.counts ? `${(row.place + 1).toLocaleString("en")} of ${total().toLocaleString("en")}` : "");
      put("where", row.file); put("number", row.row); put("id", row.id ?? ""); at("id-part").hidden = row.id === null;
      put("text-1", visible(row.texts[0])); put("text-2", visible(row.texts[1] ?? "")); at("text-2").hidden = row.texts.length < 2;
      at("answers").hidden = blind; at("blind-answers").hidden = !blind;
      const word = (id, text) => { at(id).querySelector("span").textContent = text; };
      word("answer-given", both ? "Both are right" : "Given is right");
      at("answer-given").hidden = row.given === null; at("answer-prediction").hidden = row.predicted === null || both;
      sayVerdict();
      at("row").dataset.key = row.key;
      if (at("row").getBoundingClientRect().top < 0) at("row").scrollIntoView();
    }
    progress();
    fetchAhead()?.catch(trouble);
  }

  function visible(text) {
    const plain = text.replace(/<br\s*\/?>/gi, "\n");
    return plain.replace(/[\0-\x08\x0b\x0c\x0e-\x1f]/g, sign => String.fromCharCode(0x2400 + sign.charCodeAt(0)));
  }

  function total() { return state.tab === "drawn" ? state.run.drawn.rows : state.run.worst.rows; }

  function sayVerdict() {
    const verdict = state.row?.verdict;
    at("said").hidden = !verdict;
    if (verdict) at("said").textContent = `Reviewed: ${words(verdict)}`;
  }

  function words(verdict) {
    return verdict.kind === "other" ? `the right label is ${verdict.label}` : WORDS[verdict.kind];
  }

  function progress() {
    const counts = state.tab === "drawn" ? state.run.drawn : state.run.worst;
    const facts = state.run.facts, listed = state.run.worst.rows;
    const more = state.tab === "worst" && facts.mismatches > listed ? `; of ${facts.mismatches.toLocaleString("en")} mismatches those worth checking first are here` : "";
    at("progress").textContent = `${counts.reviewed.toLocaleString("en")} of ${counts.rows.toLocaleString("en")} rows reviewed${more}`;
    at("progress").dataset.reviewed = counts.reviewed;
  }

  // ------------------------------------------------------------------------------------------------------- the answers

  async function answer(kind, label) {
    const row = state.row;
    if (!row || state.isBusy) return;
    if ((kind === "given" && row.given === null) || (kind === "prediction" && row.predicted === null)) return;
    await alone(async () => {
      const before = row.verdict;
      const body = { key: row.key, answer: kind, tab: state.tab, by: me };
      if (label !== undefined) body.label = label;
      const { verdict } = await ask("/api/verdicts", body);
      row.verdict = verdict;
      state.ours.add(verdict.number);
      if (!before) (state.tab === "drawn" ? state.run.drawn : state.run.worst).reviewed++;
      say(`Saved: ${words(verdict)}.`);
      await next();
      if (state.row === row) show(row);
      if (state.tab === "drawn") await estimate();
    });
  }

  async function undo() {
    await alone(async () => {
      const { row, tab } = await ask("/api/undo", { by: me });
      if (!row) return say("There is nothing to take back.");
      if (tab !== state.tab) choose(tab);
      await counts();
      turnTo(row);
      say(row.verdict ? `Taken back; before, you had: ${words(row.verdict)}.` : "Taken back.");
      if (state.tab === "drawn") await estimate();
    });
  }

  async function alone(work) {
    if (state.isBusy) return;
    state.isBusy = true;
    document.body.dataset.busy = "yes";
    try { await work(); at("trouble").hidden = true; } catch (error) { trouble(error); }
    state.isBusy = false;
    delete document.body.dataset.busy;
  }

  function trouble(error) {
    at("trouble").hidden = false;
    at("trouble").textContent = error.message;
  }

  function say(text) { at("status").textContent = text; }

  function openChooser() {
    if (!state.row) return;
    const list = at("label"), row = state.row, blind = isBlind();
    const others = state.run.labels.filter(label => blind || (label !== row.given && label !== row.predicted));
    list.replaceChildren(...others.map(label => new Option(label, `=${label}`)), new Option("none of the labels", "none"));
    at("chooser").hidden = false; at("answer-other").setAttribute("aria-expanded", "true");
    list.focus();
  }

  function closeChooser() {
    if (at("chooser").contains(document.activeElement)) document.activeElement.blur();
    at("chooser").hidden = true; at("answer-other").setAttribute("aria-expanded", "false");
  }

  function chosen() {
    const value = at("label").value;
    return value === "none" ? answer("none") : answer("other", value.slice(1));
  }

  function makeBlindAnswers() {
    const button = (key, text, act) => {
      const made = document.createElement("button"), sign = document.createElement("kbd"), name = document.createElement("bdi");
      made.type = "button"; sign.textContent = key; name.textContent = text;
      made.append(sign, " ", name); made.addEventListener("click", act);
      return made;
    };
    const few = state.run.labels.length <= MOST_DIGITS;
    const labels = few ? state.run.labels.map((label, k) => button(String(k + 1), label, () => answer("other", label))) : [button("1", "Choose the label", openChooser)];
    at("blind-answers").replaceChildren(...labels, button("9", "None of them", () => answer("none")), button("0", "Unsure", () => answer("unsure")));
  }

  function blindKey(key) {
    const buttons = [...at("blind-answers").children];
    buttons.find(button => button.firstChild.textContent === key)?.click();
  }

  // ----------------------------------------------------------------------------------------------------- the estimate

  async function counts() {
    const found = await ask("/api/estimates");
    state.run.drawn = found.drawn; state.run.worst = found.worst;
    return found;
  }

  async function estimate() {
    const { true_accuracy: shares, drawn } = await counts();
    progress();
    const percent = share => `${(100 * share).toFixed(1)} %`;
    const line = (name, share) => share === null ? "" : `${name}: ${share.unsure ? `between ${percent(share.least)} and ${percent(share.most)}` : percent(share.least)}`
      + ` (95 % interval ${percent(share.low)} to ${percent(share.high)}), from ${share.drawn.toLocaleString("en")} of ${share.population.toLocaleString("en")} rows`
      + (share.unsure ? `, ${share.unsure.toLocaleString("en")} of which nobody could tell or that were passed over.` : ".");
    at("estimate-model").textContent = shares ? line("The model is right", shares.model) : "Nothing was drawn yet: judge the rows in their order.";
    at("estimate-given").textContent = shares ? line("Given labels are right", shares.given) : "";
    at("estimate-note").textContent = shares && !shares.is_whole
      ? `So far. It is unbiased once all ${drawn.rows.toLocaleString("en")} rows are judged.` : "";
  }

  async function lookAgain() {
    if (document.hidden || state.isBusy || !state.run) return;
    try {
      const { rows, last } = await ask(`/api/changes?since=${state.last}`);
      state.last = last;
      const keys = Object.keys(rows);
      if (!keys.length) return;
      await counts(); progress();
      const keeps = verdict => at("reviewed").value !== "no" || !verdict;
      state.ahead = state.ahead.filter(row => !(row.key in rows) || keeps(rows[row.key]));
      for (const row of state.ahead) if (row.key in rows) row.verdict = rows[row.key];
      const now = state.row && state.row.key in rows ? rows[state.row.key] : undefined;
      if (now !== undefined && !(now && state.ours.has(now.number))) {
        state.row.verdict = now; sayVerdict();
        if (now) say("Somebody else has just reviewed this row.");
      }
    } catch (error) { trouble(error); }
  }

  // ----------------------------------------------------------------------------------------------------- keys and clicks

  function choose(tab) {
    state.tab = tab;
    for (const each of ["worst", "drawn"]) at(`tab-${each}`).setAttribute("aria-pressed", String(each === tab));
    at("estimates").hidden = tab !== "drawn";
    at("filters").hidden = tab === "drawn";
    if (tab === "drawn") {
      for (const name of ["pair", "slice", "file", "text"]) at(name).value = "";
      at("reviewed").value = "no";
    }
  }

  const changed = () => alone(() => begin());
  for (const name of ["pair", "slice", "file", "reviewed"]) at(name).addEventListener("change", changed);
  let waiting = 0;
  at("text").addEventListener("input", () => { clearTimeout(waiting); waiting = setTimeout(() => begin().catch(trouble), 150); });
  at("filters").addEventListener("submit", event => { event.preventDefault(); at("text").blur(); changed(); });
  at("chooser").addEventListener("submit", event => { event.preventDefault(); chosen(); });
  for (const tab of ["worst", "drawn"]) at(`tab-${tab}`).addEventListener("click", () => alone(async () => {
    choose(tab); await begin(); if (tab === "drawn") await estimate();
  }));
  const actions = {
    "answer-given": () => answer("given"), "answer-prediction": () => answer("prediction"), "answer-other": openChooser,
    "answer-unsure": () => answer("unsure"), previous: () => alone(previous), next: () => alone(next), undo,
  };
  for (const [id, act] of Object.entries(actions)) at(id).addEventListener("click", act);
  const keys = { 1: "answer-given", 2: "answer-prediction", 3: "answer-other", 4: "answer-unsure", u: "undo", ArrowLeft: "previous", ArrowRight: "next" };
  document.addEventListener("keydown", event => {
    if (event.ctrlKey || event.altKey || event.metaKey || event.isComposing || event.repeat) return;
    if (event.key === "Escape") { closeChooser(); document.activeElement.blur(); return; }
    if (event.target.closest("input, textarea")) return;
    if (event.target.closest("select")) {
      if (event.key === "Enter" && event.target.id === "label") { event.preventDefault(); chosen(); }
      return;
    }
    if (/^[0-9]$/.test(event.key) && state.run && isBlind()) { event.preventDefault(); blindKey(event.key); return; }
    const id = keys[event.key];
    if (!id) return;
    event.preventDefault();
    if (id === "answer-prediction" && state.row && state.row.given === state.row.predicted) answer("given"); else actions[id]();
  });
  document.addEventListener("visibilitychange", lookAgain);

  // -------------------------------------------------------------------------------------------------------------- start

  function fill() {
    const run = state.run, name = label => label === null ? "nothing" : label;
    at("name").textContent = run.name; document.title = `Review of ${run.name}`;
    at("pair").append(new Option("all", ""), ...run.pairs.map(([g, p, given, predicted, rows]) =>
      new Option(`given ${name(given)}, predicted ${name(predicted)} (${rows.toLocaleString("en")})`, `${g},${p}`)));
    at("slice").append(new Option("all", ""), ...run.slices.map(([column, value, rows]) =>
      new Option(`${column} = ${value} (${rows.toLocaleString("en")})`, JSON.stringify([column, value]))));
    at("slice-field").hidden = !run.slices.length;
    at("file").append(new Option("all", ""), ...run.files.map((file, k) => new Option(file, k)));
    at("file-field").hidden = run.files.length < 2;
    makeBlindAnswers();
  }

  alone(async () => {
    state.run = await ask("/api/run");
    state.last = state.run.last;
    fill();
    choose(state.run.worst.rows || !state.run.drawn.rows ? "worst" : "drawn");
    await begin();
    if (state.tab === "drawn") await estimate();
    document.body.dataset.ready = "yes";
    setInterval(lookAgain, LOOK_AGAIN_MS);
  });
})();
