"""The web page of the view: it follows one user's list over server-sent events, and needs nothing from elsewhere."""

from typing import Final

PAGE: Final = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>Recommendations</title>
<style>
 :root { color-scheme: light dark; --line: color-mix(in srgb, currentColor 15%, transparent) }
 body { font: 16px/1.5 system-ui, sans-serif; max-width: 44rem; margin: 3rem auto; padding: 0 1rem }
 h1 { font-size: 1.4rem } form { display: flex; gap: .5rem } input { flex: 1 } input, button { font: inherit; padding: .4rem .7rem }
 #status { min-height: 1.5rem; margin: 1rem 0 } dl { display: grid; grid-template-columns: max-content 1fr; gap: .1rem 1rem; margin: 1rem 0 }
 dt, .muted, th { opacity: .65; font-weight: normal } dd { margin: 0; overflow-wrap: anywhere }
 table { border-collapse: collapse; width: 100% } th, td { padding: .35rem .5rem; border-bottom: 1px solid var(--line); text-align: left }
 td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; width: 1% ; white-space: nowrap } td { overflow-wrap: anywhere }
</style>
<h1>Recommendations</h1>
<form><input name="user" placeholder="user id" aria-label="user id" autocomplete="off" autofocus required><button>Show</button></form>
<p id="status" class="muted" role="status">Type a user id to see the newest list and follow it as it changes.</p>
<div id="list"></div>
<script>
const message = document.getElementById("status"), list = document.getElementById("list"), form = document.forms[0];
let source, again;
const node = (tag, text, name = "") => Object.assign(document.createElement(tag), {textContent: text, className: name});
const row = cells => { const tr = node("tr", ""); tr.append(...cells); return tr; };
// An integer beyond 2^53 keeps its digits where the browser gives them.
const exact = (_, value, context) => Number.isInteger(value) && !Number.isSafeInteger(value) && context ? context.source : value;
function show(found) {
  const facts = node("dl", ""), table = node("table", "");
  const summary = {source: found.source, model: found.model, "as of": new Date(found.as_of).toLocaleString(), interactions: found.taken};
  for (const [name, value] of Object.entries(summary)) facts.append(node("dt", name), node("dd", value ?? "-"));
  table.append(row([node("th", "#", "n"), node("th", "item"), node("th", "score", "n")]));
  found.items.forEach((item, i) => {
    table.append(row([node("td", i + 1, "n"), node("td", item), node("td", found.scores[i]?.toFixed(4), "n")]));
  });
  list.replaceChildren(facts, table);
}
function follow(user) {
  source?.close(); clearTimeout(again); list.replaceChildren(); message.textContent = "Connecting ...";
  source = new EventSource("/recommendations/" + encodeURIComponent(user) + "/stream");
  source.onmessage = event => {
    show(JSON.parse(event.data, exact)); message.textContent = "Live. Received at " + new Date().toLocaleTimeString() + ".";
  };
  source.addEventListener("none", () => { list.replaceChildren(); message.textContent = "No list for this user yet. Waiting ..."; });
  source.onerror = () => {
    message.textContent = "Not connected, trying again ...";
    if (source.readyState === EventSource.CLOSED) again = setTimeout(follow, 2000, user);
  };
}
form.onsubmit = event => {
  event.preventDefault();
  const hash = "#" + encodeURIComponent(form.user.value);
  if (location.hash === hash) follow(form.user.value); else location.hash = hash;
};
onhashchange = () => { const user = decodeURIComponent(location.hash.slice(1)); if (user) { form.user.value = user; follow(user); } };
onhashchange();
</script>
</html>
"""
