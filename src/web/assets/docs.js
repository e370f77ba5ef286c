// What the pages gain with JavaScript: search as you type, copy buttons, one language of examples on all pages.
"use strict";

const words = document.body.dataset;

// Copy buttons.
for (const block of document.querySelectorAll("pre")) {
  const button = document.createElement("button");
  button.className = "copy";
  button.type = "button";
  button.textContent = words.copy;
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(block.querySelector("code").textContent);
    button.textContent = words.copied;
    setTimeout(() => { button.textContent = words.copy; }, 1500);
  });
  block.append(button);
}

// The language of the examples is remembered.
const choices = [...document.querySelectorAll(".tabs input[name=language]")];
const kept = localStorage.getItem("language");
for (const choice of choices) {
  if (choice.value === kept) choice.checked = true;
  choice.addEventListener("change", () => localStorage.setItem("language", choice.value));
}

// Search.
const form = document.querySelector(".search");
const input = form.querySelector("input");
const list = form.querySelector("#found");
let index = null;
let selected = -1;
form.hidden = false;

async function load() {
  if (!index) {
    const entries = await (await fetch(form.dataset.index)).json();
    const plain = (text) => (text || "").toLowerCase().normalize("NFD").replace(/[\u0300-\u036f]/g, "");
    index = entries.map((entry) => ({ ...entry, head: plain(entry.title), rest: plain(`${entry.group} ${entry.words}`) }));
    index.plain = plain;
  }
  return index;
}

// Every word must be found; what is found in the title, and at its beginning, comes first.
function score(entry, terms) {
  let total = 0;
  for (const term of terms) {
    const at = entry.head.indexOf(term);
    if (at === 0) total += 6;
    else if (at > 0) total += entry.head[at - 1] === " " ? 5 : 3;
    else if (entry.rest.includes(term)) total += 1;
    else return 0;
  }
  return total;
}

async function search() {
  const entries = await load();
  const terms = entries.plain(input.value).split(/\s+/).filter(Boolean);
  const found = terms.length === 0 ? [] : entries
    .map((entry) => [score(entry, terms), entry])
    .filter(([points]) => points > 0)
    .sort((a, b) => b[0] - a[0])
    .slice(0, 12);
  list.replaceChildren(...found.map(([, entry], at) => {
    const item = document.createElement("li");
    item.role = "option";
    item.id = `found-${at}`;
    const link = document.createElement("a");
    link.href = entry.page;
    link.tabIndex = -1;
    if (entry.method) {
      const method = document.createElement("span");
      method.className = `method ${entry.method.toLowerCase()}`;
      method.textContent = entry.method;
      link.append(method);
    }
    const group = document.createElement("small");
    group.textContent = entry.group;
    link.append(entry.title, group);
    item.append(link);
    return item;
  }));
  if (terms.length > 0 && found.length === 0) {
    const nothing = document.createElement("li");
    nothing.className = "nothing";
    nothing.textContent = words.nothing;
    list.append(nothing);
  }
  select(found.length > 0 ? 0 : -1);
  show(terms.length > 0);
}

function show(open) {
  list.hidden = !open;
  input.setAttribute("aria-expanded", String(open));
}

function select(at) {
  const items = [...list.querySelectorAll("[role=option]")];
  selected = items.length === 0 ? -1 : (at + items.length) % items.length;
  items.forEach((item, index) => item.setAttribute("aria-selected", String(index === selected)));
  input.setAttribute("aria-activedescendant", selected < 0 ? "" : items[selected].id);
  items[selected]?.scrollIntoView({ block: "nearest" });
}

input.addEventListener("focus", load);
input.addEventListener("input", search);
input.addEventListener("keydown", (event) => {
  if (event.key === "ArrowDown") select(selected + 1);
  else if (event.key === "ArrowUp") select(selected - 1);
  else if (event.key === "Escape") { input.value = ""; show(false); input.blur(); }
  else return;
  event.preventDefault();
});
form.addEventListener("submit", (event) => {
  event.preventDefault();
  list.querySelectorAll("[role=option] a")[selected]?.click();
});
document.addEventListener("click", (event) => { if (!form.contains(event.target)) show(false); });
document.addEventListener("keydown", (event) => {
  const typing = /^(INPUT|TEXTAREA|SELECT)$/.test(document.activeElement.tagName) && document.activeElement.type !== "radio";
  if (event.key === "/" && !typing && !event.ctrlKey && !event.metaKey) { event.preventDefault(); input.focus(); }
});
