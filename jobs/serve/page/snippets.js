// What was just asked, for a terminal or a program.

const samplingOf = ({ fps, max_frames, start_s, end_s }) =>
  Object.fromEntries(Object.entries({ fps, max_frames, start_s, end_s }).filter(([, value]) => value != null));

// What OpenAI's client has no arguments for.
const EXTRAS = new Set(["top_k", "repetition_penalty", "choices"]);

/** A question with all that it follows. answers: by id. */
function turnsOf(answer, answers) {
  const before = answers.get(answer.after);
  return before ? [...turnsOf(before, answers), { role: "assistant", content: before.text }, saidBy(answer)] : [saidBy(answer)];
}

const saidBy = ({ question }) => ({ role: "user", content: question });

function chatOf(model, fileId, plan, asked, answers) {
  const [first, ...rest] = turnsOf(asked, answers);
  const video = { type: "video_url", video_url: { url: fileId, ...samplingOf(plan) } };
  const shown = { ...first, content: [video, { type: "text", text: first.content }] };
  return { model, messages: [shown, ...rest], ...asked.manner };
}

const quoted = (text) => `'${text.replaceAll("'", String.raw`'\''`)}'`;

export function asCurl(model, fileId, plan, asked, answers) {
  const body = JSON.stringify({ ...chatOf(model, fileId, plan, asked, answers), stream: true });
  return [
    `curl -N ${location.origin}/v1/chat/completions`,
    `  -H 'authorization: Bearer '"$VIDRAY_API_KEY"`,
    `  -H 'content-type: application/json'`,
    `  -d ${quoted(body)}`,
  ].join(" \\\n");
}

const WORDS = new Map([[true, "True"], [false, "False"], [null, "None"]]);

/** A JSON value as Python writes it. */
function python(value, indent = "    ") {
  const inner = `${indent}    `;
  const block = (open, lines, close) => `${open}\n${lines.map((line) => `${inner}${line},\n`).join("")}${indent}${close}`;
  if (Array.isArray(value)) return block("[", value.map((each) => python(each, inner)), "]");
  if (value !== null && typeof value === "object") {
    return block("{", Object.entries(value).map(([name, each]) => `${JSON.stringify(name)}: ${python(each, inner)}`), "}");
  }
  return WORDS.get(value) ?? JSON.stringify(value);
}

export function asPython(model, fileId, plan, asked, answers) {
  const { messages, ...rest } = chatOf(model, fileId, plan, asked, answers);
  const isExtra = ([name]) => EXTRAS.has(name);
  const extras = Object.entries(rest).filter(isExtra);
  const known = Object.entries(rest).filter((each) => !isExtra(each));
  const all = extras.length ? [...known, ["extra_body", Object.fromEntries(extras)]] : known;
  const named = all.map(([name, value]) => `    ${name}=${python(value)},`);
  return `import os

from openai import OpenAI

client = OpenAI(base_url="${location.origin}/v1", api_key=os.environ.get("VIDRAY_API_KEY", "none"))
words = client.chat.completions.create(
${named.join("\n")}
    messages=${python(messages)},
    stream=True,
)
for chunk in words:
    print(chunk.choices[0].delta.content or "", end="", flush=True)
`;
}

export const asJson = (answer) => JSON.stringify(answer, null, 2);
