"use strict";
const $ = id => document.getElementById(id);
const node = (tag, text = "", name = "") => Object.assign(document.createElement(tag), {textContent: text, className: name});
const number = value => value.toLocaleString("en");
const clock = ms => new Date(ms).toLocaleTimeString([], {hour12: false});
const LOOKS_EVERY_MS = 2000, AGAIN_AFTER_MS = 2000, SPEAKS_EVERY_MS = 3000, LOG_LINES = 200, CELLS_WITH_TEXT = 40;
let about = {}, token = sessionStorage.getItem("token") ?? "", stopped = new AbortController(), user = "";

// ---- talking to the view ----

// An integer beyond 2^53 keeps its digits where the browser gives them.
const parsed = text => JSON.parse(text, (_, value, context) =>
  Number.isInteger(value) && !Number.isSafeInteger(value) && context ? context.source : value);

async function asked(path, options = {}) {
  const answer = await fetch(path, {...options, headers: token ? {Authorization: "Bearer " + token} : {}});
  if (answer.status === 401) { askForToken(); throw new Error("a token is wanted"); }
  return answer;
}
const got = async path => { const answer = await asked(path); return answer.ok ? parsed(await answer.text()) : null; };

// EventSource sends no token, so the stream is read here.
async function* events(path, signal) {
  const answer = await asked(path, {signal});
  if (!answer.ok) throw new Error("status " + answer.status);
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  for (let rest = "";;) {
    const {done, value} = await reader.read();
    if (done) return;
    rest += value;
    const blocks = rest.split("\n\n");
    rest = blocks.pop();
    for (const block of blocks) {
      const fields = Object.fromEntries(block.split("\n").map(line => [line.slice(0, line.indexOf(":")), line.slice(line.indexOf(":") + 2)]));
      if (fields.data) yield {name: fields.event ?? "list", data: parsed(fields.data)};
    }
  }
}

function askForToken() {
  $("everything").hidden = true;
  $("token-form").hidden = false;
  $("token").focus();
}

// ---- what is said aloud: few words, and not too often ----

let due = "", spoken = 0, waits;
function say(text) {
  due = text;
  clearTimeout(waits);
  waits = setTimeout(() => { $("said").textContent = due; spoken = Date.now(); }, Math.max(0, spoken + SPEAKS_EVERY_MS - Date.now()));
}
function connection(state, text) { $("connection").dataset.state = state; $("connection").textContent = text; }

// ---- one user ----

let state, shown, titles = {};
const titled = item => titles[item] ?? String(item);

function log(text, kind = "") {
  const line = node("li", "", kind);
  const time = node("time", clock(Date.now()));
  line.append(time, node("span", text));
  $("log").prepend(line);
  while ($("log").children.length > LOG_LINES) $("log").lastChild.remove();
}

async function follow(name) {
  stopped.abort();
  stopped = new AbortController();
  const {signal} = stopped;
  user = name; state = shown = undefined; titles = {};
  for (const id of ["log", "list", "slots", "segments"]) $(id).replaceChildren();
  $("hint").hidden = true; $("person").hidden = false; $("remembered").hidden = !about.users;
  $("who").textContent = name; $("user").value = name; document.title = name + " – rec2pm";
  $("list-facts").textContent = ""; $("no-list").hidden = false; $("state").hidden = true; $("nothing").hidden = false;
  showActive();
  const path = about.users ? "/users/" : "/recommendations/";
  while (!signal.aborted) {
    try {
      for await (const {name: kind, data} of events(path + encodeURIComponent(name) + "/stream", signal)) {
        if (signal.aborted) return;
        connection("live", "live");
        Object.assign(titles, data.titles);
        if (kind === "state") showState(data); else showList(kind === "none" ? null : data);
      }
    } catch (error) {
      if (signal.aborted) return;
    }
    connection("lost", "not connected, trying again …");
    say("Not connected, trying again.");
    await new Promise(again => setTimeout(again, AGAIN_AFTER_MS));
  }
}

function showState(found) {
  const known = found.taken !== undefined;
  $("state").hidden = !known; $("nothing").hidden = known;
  const before = state;
  state = known ? found : undefined;
  if (!known) { if (before) { log("forgotten"); say("The user was forgotten."); } return; }
  if (before) tellWhatCame(before, found); else say(`Following ${found.user}: ${found.taken} interactions remembered.`);
  showWorking(found, before);
  showPreference(found);
}

function tellWhatCame(before, found) {
  const came = found.taken - before.taken, folds = found.folds - before.folds;
  if (came > 0) {
    const folded = folds > 0 && found.segments[0] ? found.segments.slice(0, folds).reverse().flatMap(each => each.items) : [];
    const items = [...folded, ...found.working_items].slice(-came).map(titled);
    for (const item of items.slice(-20)) log("+ " + item);
  }
  if (folds > 0) {
    const text = `${folds === 1 ? "A segment was" : folds + " segments were"} folded: ${found.folds} in the preference memory.`;
    log(text, "fold"); say(text);
    $("arrow").classList.remove("folding"); void $("arrow").offsetWidth; $("arrow").classList.add("folding");
    setTimeout(() => $("arrow").classList.remove("folding"), 4000);
  }
}

function showWorking(found, before) {
  const {working_items: items, segment_length: length} = found, slots = $("slots");
  $("fill").textContent = `${items.length} of ${length} items`;
  slots.classList.toggle("small", length > CELLS_WITH_TEXT);
  while (slots.children.length < length) slots.append(node("li"));
  while (slots.children.length > length) slots.lastChild.remove();
  [...slots.children].forEach((slot, at) => {
    const full = at < items.length, text = full ? titled(items[at]) : "";
    if (slot.textContent !== text) slot.textContent = slot.title = text;
    slot.ariaHidden = full ? null : "true";
    slot.classList.toggle("full", full);
    slot.classList.toggle("newest", at === items.length - 1 && before !== undefined);
  });
}

function showPreference(found) {
  const {memory, folds, segments} = found;
  $("folded").textContent = folds === 1 ? "1 segment folded" : `${number(folds)} segments folded`;
  $("memory-facts").textContent = memory
    ? `${number(folds * found.segment_length)} interactions in ${number(memory.bytes)} bytes, format ${memory.format.slice(0, 24)}` +
      (memory.missing_segments ? `; ${memory.missing_segments} segments were not kept when it was rebuilt` : "")
    : `Empty until ${found.segment_length} items are in the working memory.`;
  const there = new Map([...$("segments").children].map(each => [each.dataset.number, each]));
  $("segments").replaceChildren(...segments.map(({number: at, items}) => {
    const known = there.get(String(at));
    if (known) return known;
    const entry = node("li"), details = node("details");
    entry.dataset.number = at;
    details.append(node("summary", `Segment ${at + 1}: ${items.length} items`), node("p", items.map(titled).join(" · ")));
    entry.append(details);
    return entry;
  }));
}

function showList(found) {
  $("no-list").hidden = found !== null;
  if (found === null) { if (shown) log("the list was withdrawn"); shown = undefined; $("list").replaceChildren(); $("list-facts").textContent = ""; return; }
  $("list-facts").textContent = `by ${found.model} from ${{memory: "both memories", working: "the working memory", popular: "what is popular"}[found.source] ?? found.source}, after ${number(found.taken)} interactions`;
  $("list").dataset.model = found.model; $("list").dataset.taken = found.taken;
  if (shown && shown.model !== found.model) {
    const text = `${found.model} makes the lists now, before it was ${shown.model}.`;
    log(text, "swap"); say(text);
  }
  const before = new Map((shown?.items ?? []).map((item, rank) => [String(item), rank]));
  const rows = new Map([...$("list").children].map(row => [row.dataset.item, row]));
  const from = new Map([...rows].map(([item, row]) => [item, row.getBoundingClientRect().top]));
  const most = Math.max(...found.scores.map(Math.abs), 1e-9);
  $("list").replaceChildren(...found.items.map((item, rank) => {
    const row = rows.get(String(item)) ?? newRow(item);
    const [place, moved, title, bar] = row.children;
    place.textContent = rank + 1;
    title.firstChild.textContent = titled(item);
    title.lastChild.textContent = titles[item] ? String(item) : "";
    const was = before.get(String(item));
    const way = !shown ? "" : was === undefined ? "new" : was > rank ? "up" : was < rank ? "down" : "";
    moved.dataset.way = way;
    moved.textContent = {new: "new", up: "▲ " + (was - rank), down: "▼ " + (rank - was), "": ""}[way];
    moved.ariaLabel = {new: "new", up: `up ${was - rank}`, down: `down ${rank - was}`, "": null}[way];
    bar.title = "score " + found.scores[rank]?.toFixed(4);
    bar.firstChild.style.width = 100 * Math.abs(found.scores[rank] ?? 0) / most + "%";
    return row;
  }));
  if (!matchMedia("(prefers-reduced-motion: reduce)").matches) {
    for (const row of $("list").children) {
      const was = from.get(row.dataset.item), top = row.getBoundingClientRect().top;
      if (was === undefined && shown) row.animate([{opacity: 0}, {opacity: 1}], 400);
      else if (was !== undefined && was !== top) row.animate([{transform: `translateY(${was - top}px)`}, {transform: "none"}], {duration: 350, easing: "ease-out"});
    }
  }
  shown = found;
}

function newRow(item) {
  const row = node("li"), title = node("span", "", "title"), bar = node("span", "", "bar"), moved = node("span", "", "moved");
  row.dataset.item = item;
  moved.role = "img";
  title.append(node("span"), node("span", "", "id"));
  bar.append(node("i"));
  bar.ariaHidden = "true";
  row.append(node("span", "", "rank"), moved, title, bar);
  return row;
}

// ---- who is active, and the workers ----

let active = [], last;
function showActive() {
  $("active-now").hidden = active.length === 0;
  const focused = document.activeElement?.dataset?.user;
  const buttons = new Map([...$("active").children].map(each => [each.firstChild.dataset.user, each]));
  $("active").replaceChildren(...active.map(each => {
    const entry = buttons.get(each.user) ?? node("li"), button = entry.firstChild ?? node("button", each.user);
    button.type = "button"; button.dataset.user = each.user;
    button.title = `${number(each.taken)} interactions, the newest at ${clock(each.at_ms)}`;
    button.ariaPressed = String(each.user === user);
    if (!entry.firstChild) { button.onclick = () => choose(each.user); entry.append(button); }
    return entry;
  }));
  if (focused !== undefined) [...$("active").children].find(each => each.firstChild.dataset.user === focused)?.firstChild.focus({preventScroll: true});
}

const cell = (text, name = "") => node("td", text ?? "–", name);
const mood = {serving: "good", "up to date": "good", refused: "bad", gone: "bad", "no worker": "bad", "standing still": "bad", loading: "wait", waiting: "wait", behind: "wait"};
function showFleet(found) {
  const champion = node("b", found.champion ?? "nothing");
  $("champion").replaceChildren("promoted: ", champion);
  $("group-unknown").hidden = found.group_known;
  $("workers").replaceChildren(...found.workers.map(each => {
    const row = node("tr"), does = cell(each.doing, mood[each.doing]);
    if (each.why) does.append(node("small", each.why));
    row.append(cell(each.worker), does, cell(each.serves), cell(each.partitions, "n"));
    return row;
  }));
  $("partitions").replaceChildren(...found.partitions.map(each => {
    const row = node("tr");
    row.append(cell(each.partition, "n"), cell(each.phase, mood[each.phase]), cell(each.worker), cell(each.version), cell(each.lag === null ? null : number(each.lag), "n"));
    return row;
  }));
  const lags = found.partitions.map(each => each.lag);
  $("lag").textContent = lags.includes(null) ? "–" : number(lags.reduce((sum, lag) => sum + lag, 0));
  const now = performance.now();
  if (last) {
    for (const name of ["interactions", "lists", "folds"]) {
      const rate = Math.max(0, found[name] - last.found[name]) * 1000 / (now - last.now);
      $("rate-" + name).textContent = rate >= 10 ? number(Math.round(rate)) : rate.toFixed(1);
    }
  }
  last = {found, now};
}

async function look() {
  try {
    if (document.hidden) return;
    const [users, workers] = await Promise.all([got("/users"), got("/workers")]);
    if (users) { active = users.active.slice(0, 20); showActive(); }
    if (workers) showFleet(workers);
    if (!user) connection("live", "live");
  } catch {
    if ($("token-form").hidden) connection("lost", "not connected, trying again …");
    last = undefined;
  } finally {
    setTimeout(look, LOOKS_EVERY_MS);
  }
}

// ---- beginning ----

const choose = name => { const hash = "#" + encodeURIComponent(name); if (location.hash === hash) follow(name); else location.hash = hash; };
const chosen = () => { const name = decodeURIComponent(location.hash.slice(1)); if (name && name !== "main") follow(name); };
$("user-form").onsubmit = event => { event.preventDefault(); choose($("user").value); };
$("token-form").onsubmit = event => { event.preventDefault(); token = $("token").value; sessionStorage.setItem("token", token); $("token-form").hidden = true; $("token").value = ""; begin(); };
let looking = false;
async function begin() {
  try {
    about = await got("/about");
    if (about.token) { const answer = await fetch("/users", {headers: {Authorization: "Bearer " + token}}); if (answer.status === 401) { askForToken(); return; } }
  } catch {
    connection("lost", "not connected, trying again …");
    setTimeout(begin, AGAIN_AFTER_MS);
    return;
  }
  $("application").textContent = about.application;
  $("everything").hidden = false;
  $("fleet").hidden = !about.users;
  if (about.users && !looking) { looking = true; look(); }
  if (!about.users) connection("live", "ready");
  chosen();
}
onhashchange = chosen;
begin();
