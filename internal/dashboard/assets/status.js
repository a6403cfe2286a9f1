// The status page: what the gateway says of itself, asked again every five
// seconds while somebody looks.

import { getJSON, showIdentity, showLink, wait } from './net.js';

const words = { ok: 'working', degraded: 'degraded', down: 'down', starting: 'starting', disabled: 'off' };
const ranks = { down: 0, degraded: 1, starting: 2, ok: 3, disabled: 4 };
const instant = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)$/;
let last = null;

function el(tag, attributes, ...children) {
  const e = Object.assign(document.createElement(tag), attributes);
  e.append(...children);
  return e;
}

function ago(when) {
  const s = Math.max(0, (Date.now() - new Date(when)) / 1000);
  if (s < 5) return 'now';
  return span(s) + ' ago';
}

function span(s) {
  if (s < 90) return Math.round(s) + ' s';
  if (s < 5400) return Math.round(s / 60) + ' min';
  if (s < 129600) return (s / 3600).toFixed(s < 36000 ? 1 : 0) + ' h';
  return Math.round(s / 86400) + ' days';
}

// clock is a time, with its day unless that is today.
function clock(when) {
  const at = new Date(when);
  const today = at.toDateString() === new Date().toDateString();
  return at.toLocaleString([], today ? { timeStyle: 'short' } : { dateStyle: 'medium', timeStyle: 'short' });
}

function size(n) {
  if (!n) return '0';
  const units = ['B', 'KB', 'MB', 'GB', 'TB'];
  const i = Math.min(units.length - 1, Math.floor(Math.log(n) / Math.log(1024)));
  return (n / 1024 ** i).toFixed(i > 1 ? 1 : 0) + ' ' + units[i];
}

const partName = (name) => {
  const short = name.replace(/^platform\./, '').replace(/_/g, ' ');
  const known = { api: 'API', cron: 'Schedules', llm: 'Model' };
  return known[short] || short[0].toUpperCase() + short.slice(1);
};

function showSummary(s) {
  const box = document.getElementById('summary');
  const wrong = (s.parts || []).filter((p) => p.state === 'down' || p.state === 'degraded').sort((a, b) => ranks[a.state] - ranks[b.state]);
  const down = wrong.some((p) => p.state === 'down');
  const state = !s.healthy || down ? 'bad' : wrong.length ? 'warn' : 'good';
  box.hidden = false;
  box.dataset.state = state;
  const names = wrong.map((p) => partName(p.name)).join(', ');
  const problems = (s.summary || '').split('\n').filter((line) => line.trim());
  const failing = s.cron?.failing || [];
  let title = state === 'good' ? (failing.length ? 'The gateway works; last run failed: ' + failing.join(', ') : 'Everything works') : names ? 'Needs attention: ' + names : 'The gateway is ' + s.gateway_state;
  if (problems.length === 1) title = problems.pop();
  const facts = ['up ' + span((Date.now() - new Date(s.started_at)) / 1000), 'version ' + (s.version || 'unknown'), 'PID ' + s.pid];
  if (s.gateway_state && s.gateway_state !== 'running') facts.unshift(s.gateway_state);
  const words = el('div', {}, el('strong', {}, title), el('span', {}, facts.join(' · ')));
  if (problems.length) words.append(el('ul', {}, ...problems.map((p) => el('li', {}, p))));
  box.replaceChildren(el('div', { className: 'sign', ariaHidden: 'true' }, state === 'good' ? '✓' : '!'), words);
}

function showParts(parts) {
  const sorted = [...parts].sort((a, b) => ranks[a.state] - ranks[b.state] || a.name.localeCompare(b.name));
  document.getElementById('parts').replaceChildren(...sorted.map((p) => {
    const unused = p.name === 'model' && p.state === 'starting'; // a model is called when there is something to answer
    const word = unused ? 'not called yet' : words[p.state] || p.state;
    const li = el('li', { className: 'part' }, el('header', {}, el('b', {}, partName(p.name)), el('em', {}, word)));
    li.dataset.state = unused ? 'disabled' : p.state;
    if (p.message) li.append(el('p', {}, p.message));
    const facts = Object.entries(p.evidence || {}).map(([k, v]) => k.replace(/_/g, ' ') + ' ' + (instant.test(v) ? clock(v) : v));
    if (p.last_ok) facts.push('last sign of life ' + ago(p.last_ok));
    facts.push(word + ' since ' + clock(p.since));
    li.append(el('p', { className: 'evidence' }, facts.join(' · ')));
    return li;
  }));
  if (!sorted.length) document.getElementById('parts').append(el('li', { className: 'part none' }, 'No part has reported yet.'));
}

function showFacts(s) {
  const q = s.queues || {};
  const l = s.ledger || {};
  const rows = [
    ['Answers from', s.model || 'no model is set: run hermes model', !s.model],
    ['API', s.api_address || 'off'],
    ['Running turns', String(s.active_agents || 0) + (q.waiting ? ' · ' + q.waiting + ' waiting for your answer' : '')],
    ['To be answered', (q.inbound || 0) + ' messages, ' + (q.turns || 0) + ' turns'],
    ['To be delivered', (q.deliveries || 0) + (q.retrying ? ', ' + q.retrying + ' retrying' : '')],
    ['Given up', String(q.dead || 0), q.dead > 0],
  ];
  if (s.cron) {
    rows.push(['Schedules', s.cron.enabled + ' of ' + s.cron.jobs + ' on']);
    if (s.cron.next_at) rows.push(['Next', clock(s.cron.next_at) + (s.cron.next_job ? ', ' + s.cron.next_job : '')]);
    if ((s.cron.failing || []).length) rows.push(['Failing schedules', s.cron.failing.join(', '), true]);
  }
  rows.push(['Ledger', size(l.bytes) + ', ' + (l.sessions || 0) + ' sessions, ' + (l.messages || 0) + ' messages']);
  if (s.last_exit) rows.push(['Last exit', (s.last_exit.reason || 'code ' + s.last_exit.code) + ', ' + ago(s.last_exit.at), !s.last_exit.clean]);
  if (s.mode) rows.push(['Restarts', s.mode]);
  document.getElementById('facts').replaceChildren(...rows.map(([name, value, bad]) =>
    el('div', {}, el('dt', {}, name), el('dd', { className: bad ? 'bad' : '' }, value))));
}

async function refresh() {
  const failed = document.getElementById('failed');
  try {
    const s = await getJSON('/api/status');
    last = Date.now();
    showIdentity(s);
    showSummary(s);
    showParts(s.parts || []);
    showFacts(s);
    failed.hidden = true;
    document.body.classList.remove('stale');
    showLink('open', 'live');
  } catch (failure) {
    failed.hidden = false;
    failed.textContent = failure.message + (last ? ' What you see is from ' + ago(last) + '.' : '');
    document.body.classList.add('stale');
    showLink(failure.passing === false ? 'refused' : 'down', failure.passing === false ? 'not allowed' : 'the gateway is down, I keep trying');
  }
}

const shown = () => document.hidden ? new Promise((done) => document.addEventListener('visibilitychange', done, { once: true })) : null;

for (;;) {
  await shown();
  await refresh();
  await wait(5000);
}
