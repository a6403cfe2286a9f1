// The schedule page: every job with its last days and its next firings, asked
// again every ten seconds while somebody looks.

import { getJSON, postJSON, showIdentity, showLink, wait } from './net.js';

const pageSize = 50;
const cellWords = { ok: 'ok', silent: 'nothing to say', failed: 'failed', timed_out: 'timed out', interrupted: 'cut off', undelivered: 'not delivered',
  missed: 'missed', skipped: 'skipped', running: 'running', due: 'due', none: 'nothing was due', unknown: 'no longer known' };
const stateWords = { scheduled: 'active', paused: 'paused', completed: 'completed', running: 'running', error: 'failed' };
const runWords = { ok: 'ok', silent: 'ok, nothing to say', failed: 'failed', timed_out: 'timed out', interrupted: 'cut off', running: 'running now' };
const deliveryWords = { sent: 'delivered', pending: 'on its way', retrying: 'waiting for the platform', dead: 'given up' };
const rows = new Map(); // id → { text, node }
let offset = 0;
let last = null;
let rounds = 0;
let poke = () => {};

function el(tag, attributes, ...children) {
  const e = Object.assign(document.createElement(tag), attributes);
  e.append(...children);
  return e;
}

function ago(when) {
  const s = (Date.now() - new Date(when)) / 1000;
  return s < 0 ? 'in ' + span(-s) : s < 5 ? 'now' : span(s) + ' ago';
}

function span(s) {
  if (s < 90) return Math.round(s) + ' s';
  if (s < 5400) return Math.round(s / 60) + ' min';
  if (s < 129600) return (s / 3600).toFixed(s < 36000 ? 1 : 0) + ' h';
  return Math.round(s / 86400) + ' days';
}

const days = ['Sun', 'Mon', 'Tue', 'Wed', 'Thu', 'Fri', 'Sat'];

// wall is what the clock on the wall shows in the zone of an RFC 3339 text.
function wall(text, withTime = true) {
  const day = text.slice(0, 10);
  const weekday = days[new Date(day + 'T00:00:00Z').getUTCDay()];
  return weekday + ' ' + day + (withTime ? ' ' + text.slice(11, 16) : '');
}

function utc(text) {
  return new Date(text).toISOString().slice(5, 16).replace('T', ' ') + ' UTC';
}

function cellText(cell, step) {
  const whole = step === '1 day';
  const counts = Object.entries(cell.runs || {}).map(([state, n]) => n + ' ' + (cellWords[state] || state));
  return wall(cell.from, !whole) + (whole ? '' : ' + ' + step) + ': ' + (counts.join(', ') || cellWords[cell.state] || cell.state) + (cell.note ? ' — ' + cell.note : '');
}

function strip(job) {
  const [width, unit] = job.step.split(' ');
  const rest = 'The last ' + job.past.length * width + ' ' + unit.replace(/s?$/, 's') + ', now at the right';
  const detail = el('p', { className: 'detail' }, rest);
  const list = el('ul', { className: 'strip', ariaLabel: 'Past runs' }, ...job.past.map((cell) => {
    const words = cellText(cell, job.step);
    const li = el('li', { title: words, tabIndex: cell.runs ? 0 : -1 });
    li.setAttribute('aria-label', words);
    li.dataset.cell = cell.state;
    for (const event of ['pointerenter', 'focus', 'click']) li.addEventListener(event, () => { detail.textContent = words; });
    return li;
  }));
  list.addEventListener('pointerleave', (e) => { if (e.pointerType === 'mouse') detail.textContent = rest; });
  return [list, detail];
}

function fact(name, value, tone, small) {
  const dd = el('dd', { className: tone || '' }, value);
  if (small) dd.append(el('small', {}, small));
  return el('div', {}, el('dt', {}, name), dd);
}

function facts(job) {
  const box = el('dl', { className: 'facts3' });
  if (job.last_run_at) {
    const bad = job.last_status === 'error';
    box.append(fact('Last run', (runWords[job.last_run_state] || job.last_run_state) + ', ' + ago(job.last_run_at), bad ? 'bad' : '',
      (job.last_error || '').split('\n')[0]));
    const d = job.last_delivery;
    let words = d ? deliveryWords[d] || d : job.last_delivery_error ? 'not delivered' : job.deliver === 'local' ? 'kept here only' : 'nothing to deliver';
    if (job.last_delivered_at) words += ', ' + ago(job.last_delivered_at);
    if (job.last_delivery_late) words += ', late by ' + job.last_delivery_late;
    box.append(fact('Last delivery', words, d === 'dead' || (!d && job.last_delivery_error) ? 'bad' : d === 'retrying' || job.last_delivery_late ? 'warn' : '', job.last_delivery_error));
  } else {
    box.append(fact('Last run', 'not yet'), fact('Last delivery', 'not yet'));
  }
  const next = el('ol', {}, ...job.next.map((n) => el('li', {}, wall(n.local) + ' ', el('span', {}, job.zone === 'UTC' ? 'UTC' : job.zone + ' = ' + utc(n.utc)))));
  if (!job.next.length) next.append(el('li', {}, job.state === 'paused' ? 'when it is resumed' : 'never again'));
  box.append(el('div', {}, el('dt', {}, 'Next'), el('dd', {}, next)));
  return box;
}

function act(words, path, node) {
  const button = el('button', { type: 'button' }, words);
  button.addEventListener('click', async () => {
    for (const b of node.querySelectorAll('button')) b.disabled = true;
    try {
      await postJSON(path, {});
      fail('');
    } catch (failure) {
      fail(failure.message);
    }
    for (const b of node.querySelectorAll('button')) b.disabled = false;
    poke();
  });
  return button;
}

function showJob(job) {
  const node = el('li', { className: 'job' });
  node.dataset.state = job.state;
  node.dataset.id = job.id;
  const path = '/api/jobs/' + job.id + '/';
  const paused = job.state === 'paused';
  const acts = el('div', { className: 'acts' }, act('Run now', path + 'run', node));
  if (job.state !== 'completed') acts.append(paused ? act('Resume', path + 'resume', node) : act('Pause', path + 'pause', node));
  node.append(el('header', {}, el('h2', {}, job.name), el('span', { className: 'pill' }, stateWords[job.state] || job.state), acts));
  node.append(el('p', { className: 'when' }, job.schedule_words || job.schedule_display || '', el('span', { className: 'dim' }, ' · ' + (job.no_agent ? 'script ' + job.script : 'agent') + ' → ' + (job.deliver || 'nowhere'))));
  if (paused && job.paused_reason) node.append(el('p', { className: 'reason' }, 'Paused: ' + job.paused_reason));
  if ((job.probable_duplicates || []).length) node.append(el('p', { className: 'twin' }, 'Looks like ' + job.probable_duplicates.join(', ')));
  node.append(...strip(job), facts(job));
  return node;
}

function showJobs(jobs) {
  const minute = Math.floor(Date.now() / 60000); // "5 min ago" grows old
  const nodes = jobs.map((job) => {
    const text = minute + JSON.stringify(job);
    let row = rows.get(job.id);
    const busy = row && row.node.contains(document.activeElement);
    if (!row || (row.text !== text && !(busy && row.text.endsWith(JSON.stringify(job))))) {
      row = { text, node: showJob(job) };
      rows.set(job.id, row);
    }
    return row.node;
  });
  const list = document.getElementById('jobs');
  if (nodes.length !== list.children.length || nodes.some((n, i) => list.children[i] !== n)) list.replaceChildren(...nodes);
  for (const id of rows.keys()) if (!jobs.some((j) => j.id === id)) rows.delete(id);
}

function showScheduler(b) {
  const s = b.scheduler;
  const box = document.getElementById('scheduler');
  const facts = [];
  let state = 'good';
  if (!s.running) { state = 'bad'; facts.push(s.who || 'No scheduler runs, so no job fires.'); }
  else if (s.stalled) { state = 'bad'; facts.push('The scheduler is stuck: it last looked ' + ago(s.heartbeat)); }
  else if (s.behind_seconds) { state = 'bad'; facts.push('The scheduler is behind by ' + span(s.behind_seconds)); }
  else if (s.last_error) { state = 'bad'; facts.push(s.last_error); }
  else facts.push('The scheduler runs');
  facts.push(b.total === 1 ? '1 job' : b.total + ' jobs');
  if (s.next_run) facts.push('next: ' + (s.next_job || 'a job') + ', ' + ago(s.next_run));
  if ((s.undelivered || []).length) facts.push(s.undelivered.length + ' of the last day’s results not delivered');
  box.hidden = b.total === 0 && state === 'good';
  box.dataset.state = state;
  box.replaceChildren(el('i', { ariaHidden: 'true' }), el('span', {}, facts.join(' · ')));
}

function showPages(b) {
  const end = b.offset + b.jobs.length;
  document.getElementById('pages').hidden = b.total <= b.jobs.length;
  document.getElementById('where').textContent = b.offset + 1 + '–' + end + ' of ' + b.total;
  document.getElementById('before').disabled = b.offset === 0;
  document.getElementById('after').disabled = end >= b.total;
}

function showLegend() {
  const legend = document.getElementById('legend');
  if (legend.children.length) return;
  for (const state of ['ok', 'silent', 'failed', 'timed_out', 'undelivered', 'missed', 'skipped', 'none']) {
    const mark = el('i', {});
    mark.dataset.cell = state;
    legend.append(el('li', {}, mark, cellWords[state]));
  }
}

function fail(words) {
  const failed = document.getElementById('failed');
  failed.hidden = !words;
  failed.textContent = words;
}

async function refresh() {
  try {
    if (rounds++ % 12 === 0) showIdentity(await getJSON('/api/status'));
    const b = await getJSON('/api/schedule?limit=' + pageSize + '&offset=' + offset);
    if (last === null || document.body.classList.contains('stale')) fail('');
    last = Date.now();
    showScheduler(b);
    showJobs(b.jobs);
    showPages(b);
    showLegend();
    document.getElementById('empty').hidden = b.total > 0;
    document.getElementById('legend').hidden = b.total === 0;
    document.body.classList.remove('stale');
    showLink('open', 'live');
  } catch (failure) {
    fail(failure.message + (last ? ' What you see is from ' + ago(last) + '.' : ''));
    document.body.classList.add('stale');
    showLink(failure.passing === false ? 'refused' : 'down', failure.passing === false ? 'not allowed' : 'the gateway is down, I keep trying');
  }
}

document.getElementById('before').addEventListener('click', () => { offset = Math.max(0, offset - pageSize); poke(); });
document.getElementById('after').addEventListener('click', () => { offset += pageSize; poke(); });

const shown = () => document.hidden ? new Promise((done) => document.addEventListener('visibilitychange', done, { once: true })) : null;

for (;;) {
  await shown();
  const poked = new Promise((done) => { poke = done; });
  await refresh();
  await Promise.race([poked, wait(10000)]);
}
