// One clip, one open stream, its questions. The address keeps the stream's id: a reload goes on.

import { html, render, useEffect, useMemo, useRef, useState } from "./vendor/htm-preact.js";
import { ApiError, call, follow, hasKey, objectUrl, setKey, upload, wake } from "./api.js";
import { Answers, Composer, Finds } from "./ask.js";
import { Operator } from "./operator.js";
import { Player, Stretch, nearest } from "./player.js";
import { Strip } from "./strip.js";
import { heard, isRunning, unwatched } from "./watch.js";
import { count, seconds } from "./words.js";

const EXAMPLE = { url: "/page/example.mp4", name: "example.mp4" };
const RATES = [0.5, 1, 2, 4, 8]; // frames a second
const KEYS = [
  ["space", "play or pause"],
  [", and .", "to the frame before or after"],
  ["[ and ]", "watch from here, or to here"],
  ["/", "write a question"],
  ["Esc", "stop the answer"],
];

function App() {
  const [model, setModel] = useState(null);
  const [problem, setProblem] = useState(null);
  const [clip, setClip] = useState(null); // {file, url}
  const [stream, setStream] = useState(null);
  const [sent, setSent] = useState(null); // share of an upload, 0 to 1
  const [isOperator, setOperator] = useState(false);

  const trying = async (work) => {
    setProblem(null);
    try {
      return await work();
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      setProblem(error);
      return null;
    }
  };
  const start = () =>
    trying(async () => {
      setModel((await call("GET", "/v1/models")).data[0].id);
      const id = location.hash.slice(1);
      if (!id) return;
      const opened = await call("GET", `/v1/streams/${encodeURIComponent(id)}`).catch(forgotten);
      if (!opened?.file_id) return;
      const file = await call("GET", `/v1/files/${opened.file_id}`);
      setClip({ file, url: await clipUrl(file) });
      setStream(opened);
    });
  useEffect(() => void start(), []);

  const open = (file, plan) =>
    trying(async () => {
      const opened = await call("POST", "/v1/streams", { source: { file_id: file.id }, plan });
      history.replaceState(null, "", `#${opened.id}`);
      setStream(opened);
    });
  const take = (blob) =>
    trying(async () => {
      setStream(null);
      setClip(null);
      setSent(0);
      try {
        const file = await upload(blob, setSent);
        setClip({ file, url: URL.createObjectURL(blob) });
        await open(file, {});
      } finally {
        setSent(null);
      }
    });
  const example = async () => take(new File([await (await fetch(EXAMPLE.url)).blob()], EXAMPLE.name));
  const leave = () => {
    history.replaceState(null, "", location.pathname);
    setStream(null);
    setClip(null);
  };
  return html`<header>
      <h1>vidray</h1>
      <p>${model ?? ""}</p>
      ${clip && !isOperator && html`<button onClick=${leave}>another clip</button>`}
      <button aria-pressed=${isOperator} onClick=${() => setOperator(!isOperator)}>operator</button>
    </header>
    ${problem && html`<${Problem} error=${problem} onKey=${start} />`}
    ${sent !== null && html`<progress value=${sent} aria-label="sent"></progress>`}
    ${isOperator
      ? html`<${Operator} trying=${trying} />`
      : stream && clip
      ? html`<${Watching} key=${stream.id} ...${{ clip, stream, model, trying }} onPlan=${(plan) => open(clip.file, plan)} />`
      : sent === null && html`<${Picker} onTake=${take} onExample=${example} />`}
    <details class="keys">
      <summary>Keys</summary>
      <dl>${KEYS.map(([key, what]) => html`<dt><kbd>${key}</kbd></dt><dd>${what}</dd>`)}</dl>
    </details>`;
}

/** A stream that is no longer known is no problem: the page begins anew. */
function forgotten(error) {
  if (error.status !== 404) throw error;
  return null;
}

const contentPath = (file) => `/v1/files/${file.id}/content`;
const clipUrl = (file) => (hasKey() || file.media.is_still ? objectUrl(contentPath(file)) : contentPath(file));

function Problem({ error, onKey }) {
  const [typed, setTyped] = useState("");
  if (error.status !== 401) return html`<p class="error" role="alert">${error.message}</p>`;
  const send = (event) => {
    event.preventDefault();
    setKey(typed);
    onKey();
  };
  return html`<form class="row" onSubmit=${send}>
    <input type="password" aria-label="key" placeholder="The key of this endpoint" value=${typed} onInput=${(event) => setTyped(event.target.value)} />
    <button class="primary">Use it</button>
  </form>`;
}

function Picker({ onTake, onExample }) {
  const [isOver, setOver] = useState(false);
  const input = useRef(null);
  const drop = (event) => {
    event.preventDefault();
    setOver(false);
    const [file] = event.dataTransfer.files;
    if (file) onTake(file);
  };
  const over = (event) => {
    event.preventDefault();
    setOver(true);
  };
  return html`<section class=${isOver ? "picker over" : "picker"} onDrop=${drop} onDragOver=${over} onDragLeave=${() => setOver(false)}>
    <p>Drop a video here</p>
    <div class="row">
      <button class="primary" onClick=${() => input.current.click()}>Pick one</button>
      <button onClick=${onExample}>Try the example</button>
    </div>
    <input type="file" ref=${input} hidden onChange=${(event) => event.target.files[0] && onTake(event.target.files[0])} />
  </section>`;
}

/** A stream that is open: the clip, its frames, questions and answers. */
function Watching({ clip, stream, model, trying, onPlan }) {
  const [state, setState] = useState(() => unwatched(stream));
  const [after, setAfter] = useState(null);
  const [time_s, setTime] = useState(0);
  const player = useRef(null);
  const { plan, media } = stream;
  const path = `/v1/streams/${stream.id}`;
  const frameUrl = useMemo(() => frames(path), [path]);

  useEffect(() => {
    const following = new AbortController();
    trying(async () => {
      for await (const event of follow(`${path}/events`, { signal: following.signal })) {
        setState((known) => heard(known, event));
      }
    }).catch((error) => error.name === "AbortError" || console.error(error));
    return () => following.abort();
  }, [path]);

  const running = state.answers.filter(isRunning);
  const seek = (to_s) => {
    player.current.currentTime = to_s;
  };
  const show = (to_s) => {
    seek(to_s);
    document.querySelector(".player").scrollIntoView({ block: "nearest" }); // on a phone it is above
  };
  const ask = (question, format) =>
    trying(async () => {
      setAfter(null);
      await call("POST", `${path}/ask`, {
        question,
        ...(after && { after: after.id }),
        ...(format && { response_format: format }),
      });
    });
  const find = (query) =>
    trying(async () => {
      const { boxes } = await call("POST", `${path}/ground`, { query, times_s: [Number(time_s.toFixed(3))] });
      const found = boxes.find((box) => box.outcome === "found");
      if (found) show(found.time_s);
    });
  const goOn = (answer) => trying(() => wake(`${path}/events?answer=${answer.id}`));
  const stop = (answer) => trying(() => call("DELETE", `${path}/answers/${answer.id}`));

  const end_s = plan.windows.at(-1).end_s;
  const stretch = { start_s: plan.windows[0].start_s, end_s };
  const fps = RATES[nearest(RATES, plan.fps)]; // a plan's own is of whole frames
  const replan = (changed) =>
    onPlan({ fps, start_s: stretch.start_s, end_s: stretch.end_s, ...changed });
  useKeys({ player, plan, seek, running, stop, cut: (changed) => replan({ ...stretch, ...changed }) });

  const boxes = state.grounds.flatMap((ground) => (ground.boxes || []).map((box) => ({ ...box, query: ground.query })));
  const { forecast } = stream;
  return html`<main>
    <section class="clip">
      <${Player}
        url=${clip.url}
        ...${{ media, player, boxes, frameUrl, plan }}
        onTime=${setTime}
        tolerance_s=${0.5 / plan.fps + 0.01}
      />
      ${!media.is_still && html`<${Stretch} duration_s=${media.duration_s} ...${stretch} onChange=${replan} />`}
      <p class="plan">
        <strong>${count(plan.num_tokens, "token")}</strong>${` of ${count(plan.num_frames, "frame")} of ${plan.width} x ${plan.height}`}
        ${!media.is_still &&
        html`<label>
          ${", at "}<select value=${String(fps)} onChange=${(event) => replan({ fps: Number(event.target.value) })}>
            ${RATES.map((rate) => html`<option value=${String(rate)}>${rate}</option>`)}
          </select>${" a second"}
        </label>`}
        ${forecast?.first_word_s != null && `; first word expected after ${seconds(forecast.first_word_s)}`}
      </p>
      <${Strip} ...${{ state, frameUrl }} onSeek=${seek} />
    </section>
    <section class="talk">
      <${Composer} isBusy=${state.isClosed} after=${after} onLetGo=${() => setAfter(null)} onAsk=${ask} onFind=${find} />
      ${state.isClosed && html`<p class="error">This stream is closed. <button class="link" onClick=${() => replan({})}>open it again</button></p>`}
      <${Finds} grounds=${state.grounds} onSeek=${show} />
      <${Answers}
        ...${{ model, plan: { fps, ...stretch } }}
        answers=${state.answers}
        duration_s=${media.duration_s}
        fileId=${clip.file.id}
        onSeek=${show}
        onStop=${stop}
        onGoOn=${goOn}
        onFollowUp=${(answer) => {
          setAfter(answer);
          document.getElementById("question").focus();
        }}
      />
    </section>
  </main>`;
}

/** Each frame is fetched once; with a key, as bytes. */
function frames(path) {
  const made = new Map();
  return (index, width_px) => {
    const url = `${path}/frames/${index}?width=${width_px}`;
    if (!made.has(url)) made.set(url, hasKey() ? objectUrl(url) : Promise.resolve(url));
    return made.get(url);
  };
}

function useKeys({ player, plan, seek, running, stop, cut }) {
  const step = (by) => {
    const index = nearest(plan.times_s, player.current.currentTime) + by;
    seek(plan.times_s[Math.max(0, Math.min(index, plan.times_s.length - 1))]);
  };
  const actions = {
    " ": () => (player.current.paused ? player.current.play() : player.current.pause()),
    ",": () => step(-1),
    ".": () => step(1),
    "[": () => cut({ start_s: player.current.currentTime }),
    "]": () => cut({ end_s: player.current.currentTime }),
    "/": () => document.getElementById("question").focus(),
  };
  useEffect(() => {
    const pressed = (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      if (event.key === "Escape") {
        running.forEach(stop);
        return;
      }
      if (event.target.closest("input, textarea, select, button, video, summary") || !player.current) return;
      const action = actions[event.key];
      if (!action) return;
      event.preventDefault();
      action();
    };
    addEventListener("keydown", pressed);
    return () => removeEventListener("keydown", pressed);
  });
}

render(html`<${App} />`, document.body);
