// The chat page. The ledger is the record: the log that the gateway gives is
// what was said, and the page only adds what is on its way. Every message of
// ours carries an id of its own, so that sending it again is harmless.

import { follow, getJSON, postJSON, showIdentity, showLink } from './net.js';
import { Outbox } from './outbox.js';
import { Composer } from './composer.js';
import { LiveTurn } from './live.js';
import { renderItem, sameText } from './items.js';

const room = new URLSearchParams(location.search).get('room') || 'main';
const log = document.getElementById('log');
const scroller = document.getElementById('scroll');
const nodes = new Map(); // key → {node, signature}
const live = new LiveTurn(draw);
const outbox = new Outbox(room, send, draw);
const composer = new Composer(room, say, () => say('/stop', true));

let entries = null; // the log as the gateway has it; null until it was read
let recent = []; // delivered, and maybe not in the log yet
let overheard = []; // accepted from another page, and not in the log yet
let unread = 0;

function send(message) {
  return postJSON('/chat/api/messages', { text: message.text, client_id: message.id, room, button: message.button });
}

function say(text, button = false) {
  outbox.add(text, button);
  stick = true;
  draw();
}

// ---- what is shown -------------------------------------------------------

// items is the whole conversation in order: the record first, then what is on
// its way in either direction.
function items() {
  const list = [];
  const taken = new Set();
  for (const e of entries || []) list.push({ key: e.id, ...e, at: new Date(e.at) });
  const known = (role, text, ref, at) => {
    const hit = list.findLast((e) => e.role === role && !taken.has(e.key) &&
      (e.ref ? e.ref === ref : sameText(e.part.text, text) && Math.abs(e.at - at) < 180000));
    if (hit) taken.add(hit.key);
    return Boolean(hit);
  };
  const mine = outbox.messages.filter((m) => !(m.state === 'accepted' && known('user', m.text, m.id, m.at)));
  recent = recent.filter((d) => !known('assistant', d.part.text, d.id, d.at));
  overheard = overheard.filter((s) => !known('user', s.text, s.id, s.at));
  const arriving = [
    ...recent.map((d) => ({ key: d.id, role: 'assistant', kind: '', part: d.part, at: d.at })),
    ...overheard.map((s) => ({ key: s.id, role: 'user', part: { text: s.text }, at: s.at })),
    ...mine.filter((m) => m.state === 'accepted').map(own),
  ].sort((a, b) => a.at - b.at);
  list.push(...arriving, ...mine.filter((m) => m.state !== 'accepted').map(own));
  // The record may tell of the answer before its event does.
  const newest = list.findLast((e) => e.role === 'assistant');
  if (newest) live.recorded(newest.ref || newest.key, newest.part.text || '');
  outbox.forget((m) => m.state === 'accepted' && !mine.includes(m));
  return live.place(list);
}

const own = (m) => ({ key: 'c-' + m.id, role: 'user', part: { text: m.text }, at: m.at, sending: m });

let frame = 0;
function draw() {
  if (!frame) frame = requestAnimationFrame(() => { frame = 0; drawNow(); });
}

function drawNow() {
  const list = items();
  markAnswered(list);
  const keep = new Set();
  let last = null;
  let day = '';
  for (const it of list) {
    const today = it.at ? it.at.toDateString() : day;
    if (today !== day) {
      day = today;
      last = put({ key: 'day-' + day, role: 'day', at: it.at }, last, keep);
    }
    last = put(it, last, keep);
  }
  for (const [key, { node }] of nodes) {
    if (!keep.has(key)) { node.remove(); nodes.delete(key); }
  }
  document.getElementById('empty').hidden = entries === null || list.length > 0;
  composer.busy(live.running);
  settle();
}

// markAnswered tells each question which of its buttons was pressed. Commands
// are the same from question to question, so an answer belongs to the last one.
function markAnswered(list) {
  let question = null;
  for (const it of list) {
    if (it.part && (it.part.buttons || []).length) question = it;
    else if (question && it.role === 'user') {
      const chosen = question.part.buttons.find((b) => b.command === it.part.text);
      if (chosen) [question.chosen, question] = [chosen.command, null];
    }
  }
}

// put shows an item behind the last one, and makes it anew only when it changed.
function put(it, last, keep) {
  keep.add(it.key);
  const signature = it.node ? 'node' : JSON.stringify([it.role, it.kind, it.part, it.sending && it.sending.state, it.sending && it.sending.reason, it.chosen]);
  let shown = nodes.get(it.key);
  if (!shown || shown.signature !== signature || (it.node && shown.node !== it.node)) {
    const node = it.node || renderItem(it, actions);
    if (shown) shown.node.replaceWith(node);
    shown = { node, signature };
    nodes.set(it.key, shown);
  }
  const next = last ? last.nextSibling : log.firstChild;
  if (shown.node !== next) log.insertBefore(shown.node, next);
  return shown.node;
}

const actions = {
  press: (button) => say(button.command, true),
  retry: (message) => outbox.retry(message),
  edit: (message) => { outbox.drop(message); composer.restore(message.text); },
};

// ---- scrolling -------------------------------------------------------------

const down = document.getElementById('down');
let stick = true; // follow the newest, until the reader scrolls up
const nearEnd = () => scroller.scrollHeight - scroller.scrollTop - scroller.clientHeight < 60;

// A change of the layout scrolls too; only the reader's own scrolling counts.
const layout = () => [scroller.scrollHeight, scroller.clientHeight, scroller.clientWidth].join();
let seen = layout();

scroller.addEventListener('scroll', () => {
  if (layout() !== seen) return settle();
  stick = nearEnd();
  down.hidden = stick;
}, { passive: true });
down.addEventListener('click', () => { stick = true; settle(); });
const resized = new ResizeObserver(settle);
resized.observe(scroller);
resized.observe(log);

function settle() {
  seen = layout();
  if (stick) scroller.scrollTop = scroller.scrollHeight;
  down.hidden = stick || nearEnd();
}

// ---- what happens ----------------------------------------------------------

let sync = 0;
// read brings the record up to date, once for several reasons at a time.
function read(soon = 0) {
  clearTimeout(sync);
  sync = setTimeout(async () => {
    try {
      const answer = await getJSON('/chat/api/log?room=' + encodeURIComponent(room));
      entries = answer.entries;
      trouble('');
      draw();
    } catch (failure) {
      if (entries === null || !failure.passing) trouble(failure.message);
      read(3000);
    }
  }, soon);
}

function trouble(text) {
  const box = document.getElementById('failed');
  box.hidden = text === '';
  box.textContent = text;
}

const onEvent = {
  hello(h) {
    live.resume(h.turn);
    if (h.commands) composer.commands = h.commands;
    for (const d of h.recent) arrived(d);
    read();
    outbox.flush();
    identify();
  },
  turn(e) {
    live.apply(e, lastKey());
    if (e.kind === 'ended') read(400);
  },
  message(d) {
    live.delivered(d.id, d.part.text || '');
    if (!arrived(d)) return;
    announce(d.part.plain || d.part.text || '');
    read(600);
  },
  said(s) {
    if (!outbox.messages.some((m) => m.id === s.client_id)) {
      overheard.push({ id: s.client_id, text: s.text, at: new Date(s.at) });
    }
    draw();
  },
};

// arrived takes a delivered message, once.
function arrived(d) {
  if (recent.some((r) => r.id === d.id) || (entries || []).some((e) => e.ref === d.id)) return false;
  recent = [...recent, { id: d.id, part: d.part, at: new Date(d.at) }].slice(-64);
  draw();
  return true;
}

function lastKey() {
  const list = [...nodes.keys()].filter((k) => !k.startsWith('day-') && !k.startsWith('turn-'));
  return list.length ? list.at(-1).replace(/^c-/, '') : undefined; // our own messages enter the record under their id
}

function announce(text) {
  document.getElementById('announce').textContent = text.slice(0, 400);
  if (document.hidden) document.title = '(' + ++unread + ') Hermes';
}

document.addEventListener('visibilitychange', () => {
  if (document.hidden) return;
  unread = 0;
  document.title = 'Hermes';
});

async function identify() {
  try {
    showIdentity(await getJSON('/api/status'));
  } catch {
    // The chat works without knowing names; the link shows what is wrong.
  }
}

const words = {
  open: 'connected',
  reconnecting: 'reconnecting…',
  down: 'the gateway is down, I keep trying',
  refused: 'not allowed',
};

follow('/chat/api/events?room=' + encodeURIComponent(room), {
  event: (name, data) => { if (onEvent[name]) onEvent[name](data); draw(); },
  state: (state, failure) => {
    showLink(state, words[state]);
    if (state === 'refused') trouble(failure.message);
    outbox.connected(state === 'open');
  },
});
