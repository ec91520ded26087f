"""A scripted model server on loopback, for real agent programs: `python -m tests.model_server`.

It speaks Anthropic Messages, OpenAI Responses, OpenAI Chat Completions and Gemini, streaming or not. What it answers is
said by a marker in the prompt, so that one server serves every program at once:

    [[mock NAME: read PATH ;; edit PATH OLD NEW ;; say done]]

NAME is the conversation: requests are counted, and usage is handed out, under it. The steps (see `script`) are taken in
turn: which one is due is told by the tool results in the request, so a repeated request gets the same answer again.

| request | answers |
|---|---|
| `GET /mock/requests?conversation=NAME&at_least=N` | every request so far, as soon as there are N of them |
| `GET /mock/requests/N` | the body of request N |
| `GET /mock/usage?conversation=NAME` | tokens handed out: sums over answers that were sent to their end |
| `POST /mock/gates/NAME` | lets go on what waits in `hold NAME` |

| module | what it is |
|---|---|
| `script` | markers, steps, and which step is due (pure) |
| `dialect` | what the server needs of a wire format, and the words the formats share (pure) |
| `anthropic`, `responses`, `chat`, `gemini` | one wire format each (pure) |
| `book` | what was asked and handed out, and the gates |
| `server` | sockets, and the steps carried out |
"""
