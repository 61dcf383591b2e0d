"""An HTTP server with the chat API that OpenAI clients speak, and memories as objects.

One thread runs the model; requests that wait together are answered together. Needs the
extra ``server``. From a request to the model:

app, guards, listening    the application and health; what stands around it; the socket
connections, tracing       bounds on slow clients; ids of requests and the access log
requests, keys, refusals  whose a request is, its body within bounds; errors as clients see them
answer_models             what every request for an answer may ask of it
chat_models, chat         chats as OpenAI's API speaks of them, and their endpoints
completion_models, completion  the same for texts to go on with
waiting                   waiting for answers, whole or as pieces of a stream
memory_models, memories   the same for memories
chats                     what the decoder reads for a chat, and its answer from what was written
stops, likely             texts that end an answer; how likely its tokens were
local_chats, vllm_chats   who writes: the loaded model or llama.cpp in one batch, or a vLLM server
library, jobs, shelf      the memories of each owner, work on them a step at a time, the store
parsers                   processes that read uploaded files
worker, turns             the thread, what waits for it, and whose turn it is
service, config, metrics  what all of these share

`plan` and `bulk` are beside it: what many documents cost, and compressing them.
"""
