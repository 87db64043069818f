// What was just asked, for a terminal or a program.

const samplingOf = ({ fps, max_frames, start_s, end_s }) =>
  Object.fromEntries(Object.entries({ fps, max_frames, start_s, end_s }).filter(([, value]) => value != null));

function chatOf(model, fileId, plan, asked) {
  return {
    model,
    messages: [
      {
        role: "user",
        content: [
          { type: "video_url", video_url: { url: fileId, ...samplingOf(plan) } },
          { type: "text", text: asked.question },
        ],
      },
    ],
    ...(asked.response_format && { response_format: asked.response_format }),
  };
}

const quoted = (text) => `'${text.replaceAll("'", String.raw`'\''`)}'`;

export function asCurl(model, fileId, plan, asked) {
  const body = JSON.stringify({ ...chatOf(model, fileId, plan, asked), stream: true });
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

export function asPython(model, fileId, plan, asked) {
  const { messages, ...rest } = chatOf(model, fileId, plan, asked);
  const named = Object.entries(rest).map(([name, value]) => `    ${name}=${python(value)},`);
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
