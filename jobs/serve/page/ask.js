// What is asked, and what was answered.

import { html, useState } from "./vendor/htm-preact.js";
import { asCurl, asJson, asPython } from "./snippets.js";
import { isPaused, isRunning } from "./watch.js";
import { count, seconds, withTimes } from "./words.js";

const SCHEMA = `{
  "type": "object",
  "properties": {
    "what": {"type": "string"}
  },
  "required": ["what"],
  "additionalProperties": false
}`;
const MODES = { ask: "Ask", find: "Find", schema: "JSON" };
const HINTS = {
  ask: "What happens in this clip?",
  find: "What to draw a box around, at the time shown",
  schema: "What to fill the schema with",
};

export function Composer({ isBusy, after, onLetGo, onAsk, onFind }) {
  const [mode, setMode] = useState("ask");
  const [text, setText] = useState("");
  const [schema, setSchema] = useState(SCHEMA);
  const [problem, setProblem] = useState("");
  const send = (event) => {
    event.preventDefault();
    const words = text.trim() || (mode === "ask" ? HINTS.ask : "");
    if (!words) return;
    if (mode === "find") return onFind(words);
    let format = null;
    if (mode === "schema") {
      try {
        format = { type: "json_schema", json_schema: { name: "answer", schema: JSON.parse(schema) } };
      } catch (error) {
        return setProblem(`The schema is no JSON: ${error.message}`);
      }
    }
    setProblem("");
    setText("");
    onAsk(words, format);
  };
  return html`<form class="composer" onSubmit=${send}>
    <div class="tabs" role="tablist">
      ${Object.entries(MODES).map(
        ([name, title]) => html`<button
          type="button"
          role="tab"
          aria-selected=${mode === name}
          onClick=${() => setMode(name)}
        >
          ${title}
        </button>`,
      )}
    </div>
    ${after && html`<p class="after">Follows up “${after.question}” <button type="button" class="link" onClick=${onLetGo}>not any more</button></p>`}
    ${mode === "schema" &&
    html`<label>JSON schema of the answer
      <textarea rows="8" spellcheck="false" value=${schema} onInput=${(event) => setSchema(event.target.value)}></textarea>
    </label>`}
    <div class="row">
      <input
        id="question"
        aria-label=${HINTS[mode]}
        placeholder=${HINTS[mode]}
        value=${text}
        autocomplete="off"
        onInput=${(event) => setText(event.target.value)}
      />
      <button class="primary" disabled=${isBusy}>${mode === "find" ? "Find" : "Ask"}</button>
    </div>
    ${problem && html`<p class="error" role="alert">${problem}</p>`}
  </form>`;
}

export function Answers({ answers, duration_s, model, fileId, plan, onSeek, onStop, onGoOn, onFollowUp }) {
  return html`<ol class="answers" aria-live="polite">
    ${answers.toReversed().map(
      (answer) => html`<li key=${answer.id} data-status=${answer.status}>
        <h3>${answer.question}</h3>
        <p class="text">
          ${withTimes(answer.text || "", duration_s).map((piece) =>
            piece.text
              ? html`<button class="link" onClick=${() => onSeek(piece.time_s)}>${piece.text}</button>`
              : piece,
          )}${isRunning(answer) && html`<span class="caret" aria-label="still writing"></span>`}
        </p>
        ${answer.error && html`<p class="error">${answer.error.code === "stopped" ? "stopped" : answer.error.message}</p>`}
        ${answer.finish_reason === "length" && html`<p class="error">cut at its longest</p>`}
        <footer>
          <${Cost} answer=${answer} />
          ${isRunning(answer)
            ? html`<button class="link" onClick=${() => onStop(answer)}>stop</button>`
            : isPaused(answer)
            ? html`<button class="link" onClick=${() => onGoOn(answer)}>go on</button>`
            : html`<button class="link" onClick=${() => onFollowUp(answer)}>follow up</button>
                <${Copies} ...${{ answer, answers, model, fileId, plan }} />`}
        </footer>
      </li>`,
    )}
  </ol>`;
}

function Cost({ answer: { usage, timings } }) {
  if (!usage) return null;
  const read = usage.frames_decoded ? count(usage.frames_decoded, "frame") : "0 s";
  const reused = usage.cached_tokens ? `, ${count(usage.cached_tokens, "token")} reused` : "";
  const first = timings?.first_word_s == null ? "" : `first word after ${seconds(timings.first_word_s)}; `;
  return html`<span class="cost">${first}${read} read ${usage.frames_decoded ? "" : "again"}${reused}</span>`;
}

function Copies({ answer, answers, model, fileId, plan }) {
  const [copied, setCopied] = useState("");
  const byId = new Map(answers.map((each) => [each.id, each]));
  const kinds = {
    curl: () => asCurl(model, fileId, plan, answer, byId),
    Python: () => asPython(model, fileId, plan, answer, byId),
    JSON: () => asJson(answer),
  };
  const copy = async (name) => {
    await navigator.clipboard.writeText(kinds[name]()).then(
      () => setCopied(name),
      () => setCopied("not allowed here"),
    );
  };
  return html`<span class="copies">
    copy as ${Object.keys(kinds).map((name) => html`<button class="link" onClick=${() => copy(name)}>${name}</button>`)}
    <span role="status">${copied && (kinds[copied] ? `copied ${copied}` : copied)}</span>
  </span>`;
}

export function Finds({ grounds, onSeek }) {
  if (!grounds.length) return null;
  return html`<ul class="finds">
    ${grounds.map(
      (ground) => html`<li key=${ground.id}>
        <strong>${ground.query}</strong>
        ${ground.error && html`<span class="error">${ground.error.message}</span>`}
        ${ground.boxes === null
          ? !ground.error && html`<span class="caret" aria-label="still looking"></span>`
          : ground.boxes.map(
              (box) => html`<button class="link" onClick=${() => onSeek(box.time_s)}>
                ${box.outcome === "failed" ? `failed (${box.code})` : box.outcome} at ${seconds(box.time_s)}
              </button>`,
            )}
      </li>`,
    )}
  </ul>`;
}
