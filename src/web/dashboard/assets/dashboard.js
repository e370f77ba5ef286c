// What the pages gain with JavaScript: copy buttons, parts that stay fresh, times that move, forms that are sent once.
'use strict';

const said = document.getElementById('said');

function say(text) {
  if (said) said.textContent = text;
}

// Copy buttons: hidden without this script.
function showCopyButtons(within) {
  for (const button of within.querySelectorAll('[data-copy]')) button.hidden = false;
}

async function copy(button) {
  const source = button.parentElement.querySelector('textarea, input, code');
  try {
    await navigator.clipboard.writeText(source.value ?? source.textContent);
  } catch {
    // Not allowed here: what is selected can be copied by hand.
    if (source.select) {
      source.focus();
      source.select();
    } else {
      getSelection().selectAllChildren(source);
    }
    return;
  }
  const before = button.textContent;
  if (before === button.dataset.done) return;
  button.textContent = button.dataset.done;
  say(button.dataset.done);
  setTimeout(() => {
    button.textContent = before;
    say('');
  }, 1600);
}

document.addEventListener('click', (event) => {
  const button = event.target.closest('[data-copy]');
  if (button) copy(button);
});
showCopyButtons(document);

// Times: the same rule as `Distance` in parts.rs, in the words that the server gave.
const words = JSON.parse(document.body.dataset.clock || 'null');

function ago(iso, due) {
  const seconds = Math.trunc((Date.now() - Date.parse(iso)) / 1000);
  const size = Math.abs(seconds);
  const told = (unit, length) => seconds < 0
    ? words['in_' + unit].replace('{n}', Math.trunc(size / length + 0.5))
    : words[unit].replace('{n}', Math.trunc(size / length));
  if (size < 60) return due ? (seconds < 0 ? words.soon : words.due) : words.now;
  if (size < 3600) return told('minutes', 60);
  if (size < 86400) return told('hours', 3600);
  if (size < 2592000) return told('days', 86400);
  return iso.slice(0, 10);
}

function moveTimes() {
  if (!words) return;
  for (const time of document.querySelectorAll('time[data-ago]')) {
    const text = ago(time.dateTime, time.dataset.ago === 'due');
    if (text !== time.textContent) time.textContent = text;
  }
}

setInterval(moveTimes, 20000);

// Forms: one that acts is sent once; one that filters leaves out what is empty.
document.addEventListener('submit', (event) => {
  const form = event.target;
  if (event.defaultPrevented) return;
  if (form.hasAttribute('data-submit-once')) {
    if (form.dataset.sent) {
      event.preventDefault();
      return;
    }
    form.dataset.sent = 'yes';
    // After the browser has gathered the form, which includes the button's own name.
    setTimeout(() => {
      for (const button of form.querySelectorAll('[type=submit]')) button.disabled = true;
    });
  }
  if (form.method === 'get') {
    const empty = [...form.elements].filter((field) => field.name && !field.disabled && field.value === '');
    for (const field of empty) field.disabled = true;
    setTimeout(() => {
      for (const field of empty) field.disabled = false;
    });
  }
});

// A page that comes back from the browser's memory has its buttons again.
addEventListener('pageshow', (event) => {
  if (!event.persisted) return;
  for (const form of document.querySelectorAll('[data-sent]')) {
    delete form.dataset.sent;
    for (const button of form.querySelectorAll('[type=submit]')) button.disabled = false;
  }
});

// The faults of a form are read first.
document.querySelector('.faults')?.focus();

// Live parts: the page is fetched again, and what is live in it takes the place of what was.
const toggle = document.querySelector('[data-live-toggle]');
const parts = () => [...document.querySelectorAll('[data-live][id]')];
const seen = new Map();
let paused = false;
let failures = 0;
let took = 0;
let timer = 0;

function placeToggle() {
  const first = parts()[0];
  if (!toggle || !first) return;
  const actions = document.querySelector('main .head .actions');
  if (actions && !first.contains(actions)) actions.prepend(toggle);
  else first.before(toggle);
  toggle.hidden = false;
}

function seconds() {
  const asked = parts().map((part) => Number(part.dataset.live)).filter((n) => n > 0);
  return asked.length === 0 ? 0 : Math.max(2, Math.min(...asked));
}

function wait() {
  clearTimeout(timer);
  const every = seconds();
  if (every === 0 || paused || document.hidden) return;
  // An answer that takes long is not asked for more often than the server can bear.
  timer = setTimeout(refresh, Math.max(Math.min(every * 2 ** failures, 120) * 1000, took * 10));
}

// Somebody works with it or reads it: it stays as it is.
function busy(part) {
  if (part.contains(document.activeElement)) return true;
  const selection = getSelection();
  return selection.rangeCount > 0 && !selection.isCollapsed && selection.getRangeAt(0).intersectsNode(part);
}

// What can be folded open, by its name and from the last: what is new comes above.
function folds(part) {
  const byName = new Map();
  for (const details of [...part.querySelectorAll('details')].reverse()) {
    const name = details.querySelector('summary')?.textContent ?? '';
    byName.set(name, [...(byName.get(name) ?? []), details]);
  }
  return byName;
}

function swap(part, fresh) {
  if (busy(part) || seen.get(part.id) === fresh.innerHTML) return;
  seen.set(part.id, fresh.innerHTML);
  const open = new Map([...folds(part)].map(([name, list]) => [name, list.map((details) => details.open)]));
  const scrolled = [...part.querySelectorAll('pre, .scroll')].map((box) => [box.scrollLeft, box.scrollTop]);
  part.replaceChildren(...document.adoptNode(fresh).childNodes);
  for (const [name, list] of folds(part)) {
    list.forEach((details, at) => { details.open = open.get(name)?.[at] ?? details.open; });
  }
  [...part.querySelectorAll('pre, .scroll')].forEach((box, at) => { if (scrolled[at]) box.scrollTo(...scrolled[at]); });
  for (const name of ['class', 'data-live']) {
    if (fresh.hasAttribute(name)) part.setAttribute(name, fresh.getAttribute(name));
    else part.removeAttribute(name);
  }
  showCopyButtons(part);
}

async function refresh() {
  const begun = performance.now();
  try {
    // No click: it does not keep the user signed in.
    const answer = await fetch(location.href, { headers: { accept: 'text/html', 'x-live': '1' }, credentials: 'same-origin', cache: 'no-store' });
    // Signed out, or moved: that is for the user to see when they do something.
    if (answer.redirected || answer.status === 401 || answer.status === 403 || answer.status === 404) return stop();
    if (!answer.ok) throw new Error(answer.status);
    const page = new DOMParser().parseFromString(await answer.text(), 'text/html');
    if (!paused) {
      for (const part of parts()) {
        const fresh = page.getElementById(part.id);
        if (fresh) swap(part, fresh);
      }
      if (toggle && !toggle.isConnected) placeToggle();
      moveTimes();
    }
    failures = 0;
    took = performance.now() - begun;
  } catch {
    failures = Math.min(failures + 1, 6);
  }
  wait();
}

function show() {
  toggle.textContent = paused ? toggle.dataset.off : toggle.dataset.on;
  toggle.classList.toggle('off', paused);
}

function stop() {
  paused = true;
  if (toggle) show();
}

toggle?.addEventListener('click', () => {
  paused = !paused;
  show();
  if (paused) wait();
  else refresh();
});
document.addEventListener('visibilitychange', () => {
  if (document.hidden) clearTimeout(timer);
  else if (!paused && seconds() > 0) refresh();
  moveTimes();
});
placeToggle();
wait();
