// The endpoint as the page sees it: JSON calls, an upload that reports, and server-sent events.

let key = sessionStorage.getItem("vidray-key") || "";

export const hasKey = () => key !== "";

export function setKey(value) {
  key = value.trim();
  sessionStorage.setItem("vidray-key", key);
}

/** What the server refused, or that it could not be reached. status: 0 then. */
export class ApiError extends Error {
  constructor(status, { message = "", code = "" } = {}) {
    super(message || (status ? `the server answered ${status}` : "the server cannot be reached"));
    this.status = status;
    this.code = code;
  }
}

const authorized = (headers = {}) => (key ? { ...headers, authorization: `Bearer ${key}` } : headers);

async function request(method, path, { body, signal, headers } = {}) {
  const sent = { method, signal, headers: authorized(headers) };
  if (body !== undefined) {
    sent.body = JSON.stringify(body);
    sent.headers["content-type"] = "application/json";
  }
  let response;
  try {
    response = await fetch(path, sent);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0);
  }
  if (!response.ok) throw await refusal(response);
  return response;
}

async function refusal(response) {
  const body = await response.json().catch(() => ({}));
  return new ApiError(response.status, body.error);
}

/** Who begins to listen to an answer has it go on; this hangs up at once. */
export async function wake(path) {
  const listening = new AbortController();
  await request("GET", path, { signal: listening.signal });
  listening.abort();
}

export const call = async (method, path, body) => (await request(method, path, { body })).json();

/** The bytes of something as a URL for <img> and <video>, which cannot send a key themselves. */
export async function objectUrl(path) {
  const blob = await (await request("GET", path)).blob();
  return URL.createObjectURL(new Blob([blob]));
}

/** fetch tells nothing about how much is up, XMLHttpRequest does. onProgress: of 0 to 1. */
export function upload(file, onProgress) {
  const form = new FormData();
  form.append("purpose", "user_data");
  form.append("file", file, file.name || "clip");
  return new Promise((resolve, reject) => {
    const sending = new XMLHttpRequest();
    sending.open("POST", "/v1/files");
    for (const [name, value] of Object.entries(authorized())) sending.setRequestHeader(name, value);
    sending.responseType = "json";
    sending.upload.onprogress = (event) => event.lengthComputable && onProgress(event.loaded / event.total);
    sending.onerror = () => reject(new ApiError(0));
    sending.onload = () =>
      sending.status < 300
        ? resolve(sending.response)
        : reject(new ApiError(sending.status, sending.response?.error));
    sending.send(form);
  });
}

/** Events of a stream after a number, for as long as it is open; comes back after a cut by itself. */
export async function* follow(path, { after = 0, signal }) {
  for (let wait_ms = 250; !signal.aborted; wait_ms = Math.min(wait_ms * 2, 5000)) {
    try {
      for await (const event of eventsOf(path, after, signal)) {
        after = event.id;
        wait_ms = 250;
        yield event;
        if (event.name === "closed") return;
      }
    } catch (error) {
      const isUnknown = error.status === 422 && after; // what ended with the server before this one
      if (signal.aborted || (error.status && error.status < 500 && !isUnknown)) throw error;
      if (isUnknown) after = 0;
    }
    await new Promise((resolve) => setTimeout(resolve, wait_ms));
  }
}

async function* eventsOf(path, after, signal) {
  const headers = after ? { "last-event-id": String(after) } : {};
  const response = await request("GET", path, { signal, headers });
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      text += value.replaceAll("\r\n", "\n");
      let end;
      while ((end = text.indexOf("\n\n")) >= 0) {
        const event = parseBlock(text.slice(0, end));
        text = text.slice(end + 2);
        if (event) yield event;
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

function parseBlock(block) {
  const fields = { event: "message", data: "" };
  for (const line of block.split("\n")) {
    const colon = line.indexOf(":");
    if (colon > 0) fields[line.slice(0, colon)] = line.slice(colon + 1).replace(/^ /, "");
  }
  return fields.data ? { id: Number(fields.id), name: fields.event, data: JSON.parse(fields.data) } : null;
}
