// Talking to the gateway: the key, JSON requests, and an event stream that
// comes back by itself. The key is kept for this tab only.

const keyName = 'hermes.key';
let asking = null;

export const wait = (ms) => new Promise((done) => setTimeout(done, ms));

function headers(extra) {
  const h = new Headers(extra);
  const key = sessionStorage.getItem(keyName);
  if (key) h.set('Authorization', 'Bearer ' + key);
  return h;
}

// Refused is an answer that is no success. status 0 means that there was none.
export class Refused extends Error {
  constructor(status, message, hint) {
    super(message);
    this.status = status;
    this.hint = hint || '';
  }
  // passing tells whether the same request may work later.
  get passing() {
    return this.status === 0 || this.status === 408 || this.status === 429 || this.status >= 500;
  }
}

async function refused(response) {
  let message = 'The gateway answered ' + response.status + '.';
  let hint = '';
  try {
    const body = await response.json();
    if (body.error && body.error.message) message = body.error.message;
    else if (typeof body.error === 'string') message = body.error; // the jobs' shape
    if (body.error && body.error.hint) hint = body.error.hint;
  } catch {
    // Not our JSON: the status alone has to do.
  }
  return new Refused(response.status, message, hint);
}

async function request(path, options = {}) {
  for (;;) {
    let response;
    try {
      response = await fetch(path, { ...options, headers: headers(options.headers), cache: 'no-store' });
    } catch (cause) {
      if (options.signal && options.signal.aborted) throw cause;
      throw new Refused(0, 'The gateway cannot be reached.');
    }
    if (response.ok) return response;
    const failure = await refused(response);
    if (failure.status !== 401) throw failure;
    await askKey(failure);
  }
}

// getJSON fetches a document. It gives up after ten seconds of silence.
export async function getJSON(path) {
  const response = await request(path, { signal: AbortSignal.timeout(10000) }).catch(silence);
  return response.json();
}

// postJSON sends a document and reads the answer.
export async function postJSON(path, body) {
  const response = await request(path, {
    method: 'POST',
    headers: { 'Content-Type': 'application/json' },
    body: JSON.stringify(body),
    signal: AbortSignal.timeout(20000),
  }).catch(silence);
  return response.json();
}

function silence(cause) {
  if (cause instanceof Refused) throw cause;
  throw new Refused(0, 'The gateway does not answer.');
}

// askKey asks for the key once, however many requests want it.
function askKey(failure) {
  if (!asking) asking = showKeyDialog(failure).finally(() => { asking = null; });
  return asking;
}

function showKeyDialog(failure) {
  const dialog = document.getElementById('keydialog');
  const wrong = sessionStorage.getItem(keyName) !== null;
  const form = document.createElement('form');
  form.method = 'dialog';
  const title = document.createElement('h2');
  title.textContent = wrong ? 'That key was not accepted' : 'This gateway asks for its key';
  const text = document.createElement('p');
  text.textContent = failure.hint || 'It is API_SERVER_KEY in the .env of the profile.';
  const input = document.createElement('input');
  input.type = 'password';
  input.required = true;
  input.autocomplete = 'current-password';
  input.setAttribute('aria-label', 'API key');
  input.placeholder = 'API_SERVER_KEY';
  const note = document.createElement('p');
  note.className = 'dim';
  note.textContent = 'It stays in this tab and is forgotten when you close it.';
  const button = document.createElement('button');
  button.className = 'primary';
  button.textContent = 'Open';
  form.append(title, text, input, note, button);
  dialog.replaceChildren(form);
  return new Promise((done) => {
    dialog.addEventListener('cancel', (e) => e.preventDefault());
    form.addEventListener('submit', (e) => {
      e.preventDefault();
      sessionStorage.setItem(keyName, input.value.trim());
      dialog.close();
      done();
    });
    dialog.showModal();
    input.focus();
  });
}

// follow keeps an event stream open for as long as the page lives.
// handlers: event(name, data), state('open' | 'reconnecting' | 'down' | 'refused', failure).
export async function follow(path, handlers) {
  let failures = 0;
  for (;;) {
    try {
      await readStream(path, (name, data) => {
        if (failures > 0 || name === 'hello') handlers.state('open');
        failures = 0;
        handlers.event(name, data);
      });
    } catch (failure) {
      if (failure instanceof Refused && !failure.passing) {
        handlers.state('refused', failure);
        await pause(10000);
        continue;
      }
    }
    failures++;
    handlers.state(failures > 4 ? 'down' : 'reconnecting');
    await pause(Math.min(250 * 2 ** (failures - 1), 5000));
  }
}

// pause waits, but not when the network or the reader comes back.
function pause(ms) {
  return new Promise((done) => {
    const end = () => {
      clearTimeout(timer);
      removeEventListener('online', end);
      document.removeEventListener('visibilitychange', seen);
      done();
    };
    const seen = () => { if (!document.hidden) end(); };
    const timer = setTimeout(end, ms);
    addEventListener('online', end);
    document.addEventListener('visibilitychange', seen);
  });
}

// The server writes at least every 20 seconds.
const longestSilence = 50000;

async function readStream(path, each) {
  const abort = new AbortController();
  let watch = setTimeout(() => abort.abort(), 15000);
  try {
    const response = await request(path, { signal: abort.signal });
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = '';
    for (;;) {
      clearTimeout(watch);
      watch = setTimeout(() => abort.abort(), longestSilence);
      const { value, done } = await reader.read();
      if (done) return;
      const blocks = (rest + value).split('\n\n');
      rest = blocks.pop();
      for (const block of blocks) dispatch(block, each);
    }
  } finally {
    clearTimeout(watch);
    abort.abort();
  }
}

function dispatch(block, each) {
  let name = 'message';
  let data = '';
  for (const line of block.split('\n')) {
    if (line.startsWith('event: ')) name = line.slice(7);
    else if (line.startsWith('data: ')) data += line.slice(6);
  }
  if (data) each(name, JSON.parse(data));
}

// showLink tells in the bar how the connection stands.
export function showLink(state, text) {
  const link = document.getElementById('link');
  if (link.dataset.state === state && link.lastElementChild.textContent === text) return;
  link.dataset.state = state;
  link.lastElementChild.textContent = text;
}

// showIdentity puts profile and model into the bar.
export function showIdentity(status) {
  const profile = status.profile && status.profile !== 'default' ? status.profile : 'Hermes';
  document.getElementById('name').textContent = profile;
  document.getElementById('model').textContent = status.model || 'no model set';
}
