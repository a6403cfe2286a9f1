// Drives the API with OpenAI's own library and prints what it saw as JSON.
import OpenAI, { APIError } from 'openai';

const [baseURL, apiKey] = process.argv.slice(2);
const client = new OpenAI({ baseURL, apiKey, maxRetries: 2 });
const messages = (content) => [{ role: 'system', content: 'be brief' }, { role: 'user', content }];
const failure = async (promise) => {
  try {
    await promise;
    return { failed: false };
  } catch (e) {
    return { failed: true, isAPIError: e instanceof APIError, name: e.constructor.name, status: e.status ?? null, code: e.code ?? null, message: e.message };
  }
};
const seen = {};

const plain = await client.chat.completions.create({ model: 'hermes-agent', messages: messages('ping') });
seen.plain = { id: plain.id, text: plain.choices[0].message.content, finish: plain.choices[0].finish_reason, usage: plain.usage };

let text = '';
let finish = null;
let usage = null;
let tools = 0;
for await (const chunk of await client.chat.completions.create({ model: 'hermes-agent', messages: messages('stream'), stream: true })) {
  text += chunk.choices[0].delta.content ?? '';
  finish = chunk.choices[0].finish_reason ?? finish;
  usage = chunk.usage ?? usage;
  if (chunk.tool) tools++;
}
seen.stream = { text, finish, usage, tools };

const helper = client.chat.completions.stream({ model: 'hermes-agent', messages: messages('stream') });
seen.helper = { text: await helper.finalContent() };

const models = [];
for await (const m of client.models.list()) models.push(m.id);
seen.models = models;
seen.model = (await client.models.retrieve('hermes-agent')).owned_by;
seen.badKey = await failure(new OpenAI({ baseURL, apiKey: 'wrong', maxRetries: 0 }).models.list());
seen.noUser = await failure(client.chat.completions.create({ model: 'x', messages: [{ role: 'system', content: 'x' }] }));
seen.broken = await failure(client.chat.completions.create({ model: 'x', messages: messages('fail') }));
seen.unknownModel = await failure(client.models.retrieve('nobody'));
seen.lateFailure = await failure((async () => {
  for await (const chunk of await client.chat.completions.create({ model: 'x', messages: messages('late'), stream: true })) void chunk;
})());
console.log(JSON.stringify(seen));
