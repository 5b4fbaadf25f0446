// The official client against a server: `node client.mjs SCENARIO URL`.
//
// Each scenario is a function below. It can request an operation on the server from the parent process:
// it writes {"ask": name, ...} as a line and reads {"answer": ...}. The exit status is 0, or 1 with the
// error on stderr.

import assert from "node:assert/strict"
import { createInterface } from "node:readline"
import { Presence, Socket } from "phoenix"
import { WebSocket } from "ws"

const [scenario, url] = process.argv.slice(2)

// The timeout of every wait below. It expires only if a scenario fails.
const DEADLINE = 60_000
// Two durations on the server's clock, which only the tests advance. The second one is shorter than the
// server's idle timeout.
const HOUR = 3_600_000
const HALF_A_MINUTE = 30_000

// Requests to the parent process.

const answers = createInterface({ input: process.stdin })[Symbol.asyncIterator]()

async function ask(name, rest = {}) {
  process.stdout.write(`${JSON.stringify({ ask: name, ...rest })}\n`)
  const { value, done } = await within(answers.next(), `an answer to ${name}`)
  assert(!done, `no answer to ${name}`)
  return JSON.parse(value).answer
}

// Advances the server's clock to `later` ms after the time `now`.
const reach = (now, later) => ask("reach", { at: now + later })

// Waiting.

function within(promise, what) {
  let timer
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`waited too long for ${what}`)), DEADLINE)
  })
  return Promise.race([promise, late]).finally(() => clearTimeout(timer))
}

// A FIFO queue; `take` waits for an item.
class Queue {
  items = []
  wanted = []
  constructor(name) { this.name = name }
  put(item) {
    const taker = this.wanted.shift()
    if(taker){ taker(item) } else { this.items.push(item) }
  }
  take() {
    if(this.items.length > 0){ return Promise.resolve(this.items.shift()) }
    return within(new Promise(resolve => this.wanted.push(resolve)), this.name)
  }
}

// Polls a condition that has no event.
async function until(what, check) {
  const end = Date.now() + DEADLINE
  while(!await check()){
    assert(Date.now() < end, `waited too long until ${what}`)
    await pause(10)
  }
}

const pause = ms => new Promise(resolve => setTimeout(resolve, ms))

// The client.

function newSocket(opts = {}) {
  const socket = new Socket(url, {
    transport: WebSocket,
    timeout: DEADLINE,
    reconnectAfterMs: () => 20,
    rejoinAfterMs: () => 20,
    ...opts,
  })
  socket.opened = new Queue("the socket to open")
  socket.closed = new Queue("the socket to close")
  socket.onOpen(() => socket.opened.put(true))
  socket.onClose(event => socket.closed.put(event))
  return socket
}

async function connected(opts) {
  const socket = newSocket(opts)
  socket.connect()
  await socket.opened.take()
  return socket
}

const disconnected = socket =>
  within(new Promise(resolve => socket.disconnect(resolve)), "the disconnect")

const outcome = push => within(new Promise(resolve => {
  for(const status of ["ok", "error", "timeout", "maybe"]){
    push.receive(status, response => resolve({ status, response }))
  }
}), "an outcome")

// A channel that queues its errors, closes and events; `joins` queues the response of each ok.
function newChannel(socket, topic, params, ...events) {
  const channel = socket.channel(topic, params)
  channel.joins = new Queue(`a join of ${topic}`)
  channel.errors = new Queue(`an error of ${topic}`)
  channel.closes = new Queue(`a close of ${topic}`)
  channel.onError(reason => channel.errors.put(reason))
  channel.onClose(reason => channel.closes.put(reason))
  channel.events = {}
  for(const event of events){
    channel.events[event] = new Queue(`${event} on ${topic}`)
    channel.on(event, payload => channel.events[event].put(payload))
  }
  return channel
}

async function joined(socket, topic, params, ...events) {
  const channel = newChannel(socket, topic, params, ...events)
  channel.join().receive("ok", response => channel.joins.put(response))
  channel.response = await channel.joins.take()
  return channel
}

const ok = async push => {
  const { status, response } = await outcome(push)
  assert.equal(status, "ok")
  return response
}

const echoes = async (channel, value) =>
  assert.deepEqual(await ok(channel.push("echo", { value })), { value })

const bytes = (length, first = 0) =>
  Uint8Array.from({ length }, (_, i) => (first + i) % 256).buffer

function assertBytes(got, expected) {
  assert(got instanceof ArrayBuffer, `not binary: ${JSON.stringify(got)}`)
  assert.deepEqual(new Uint8Array(got), new Uint8Array(expected))
}

// The scenarios.

const scenarios = {
  async joins() {
    const socket = await connected({ params: { user_id: "ann" } })
    const room = await joined(socket, "room:lobby", { user: "zoë" })
    assert.deepEqual(room.response, { topic: "room:lobby", params: { user: "zoë" } })
    assert.equal(await ask("joined", { topic: "room:lobby" }), 1)
    const refusals = {
      "deny:x": { reason: "unauthorized" },
      "boom:x": { reason: "join crashed" },
      "nowhere:x": { reason: "unmatched topic" },
    }
    for(const [topic, response] of Object.entries(refusals)){
      const channel = newChannel(socket, topic, {})
      assert.deepEqual(await outcome(channel.join()), { status: "error", response })
      channel.leave()
    }
    const slow = await joined(socket, "slowjoin:1", { ms: 50 })
    assert.deepEqual(slow.response, { topic: "slowjoin:1", slept: 50 })
    await echoes(room, 1)
    await echoes(slow, 2)
  },

  async pushes() {
    const socket = await connected({ params: { user_id: "ann", "a b": "ö&=" } })
    const room = newChannel(socket, "room:lobby", {}, "pushed")
    // A push before the join is answered is sent after the answer.
    const joining = outcome(room.join())
    const early = outcome(room.push("echo", { early: true }))
    assert.equal((await joining).status, "ok")
    assert.deepEqual(await early, { status: "ok", response: { early: true } })

    assert.deepEqual(await ok(room.push("ack", {})), {})
    const values = [null, "", "é\u2028\u0000👩‍🚀\"\\", 1.5, -7, [], { deep: [{ er: [1] }] }]
    for(const value of values){ await echoes(room, value) }
    assert.deepEqual(await outcome(room.push("nack", {})), { status: "error", response: {} })
    const nope = { status: "error", response: { reason: "nope" } }
    assert.deepEqual(await outcome(room.push("fail", {})), nope)
    const odd = { status: "maybe", response: { note: "neither ok nor error" } }
    assert.deepEqual(await outcome(room.push("odd_status", {})), odd)
    assert.equal((await outcome(room.push("noreply", {}, 100))).status, "timeout")

    // A late reply finds its push, after the reply to a later push.
    const order = []
    const slow = ok(room.push("slow", { ms: HALF_A_MINUTE })).then(() => order.push("slow"))
    await ok(room.push("echo", {})).then(() => order.push("fast"))
    await reach(await ask("now"), HALF_A_MINUTE)
    await slow
    assert.deepEqual(order, ["fast", "slow"])

    room.push("push_me", { n: 3 })
    for(const i of [1, 2, 3]){ assert.deepEqual(await room.events.pushed.take(), { i }) }
    const { params } = await ok(room.push("whoami", {}))
    assert.equal(params.user_id, "ann")
    assert.equal(params["a b"], "ö&=")
  },

  async broadcasts() {
    const [one, two] = [await connected(), await connected()]
    const ann = await joined(one, "room:lobby", {}, "shout", "news")
    const bob = await joined(two, "room:lobby", {}, "shout", "news")
    const other = await joined(two, "room:other", {}, "shout", "news")
    ann.push("shout_from", { nr: 1 })
    assert.deepEqual(await bob.events.shout.take(), { nr: 1 })
    await ok(ann.push("shout", { nr: 2 }))
    // The sender does not receive its `shout_from` (nr 1), only its `shout` (nr 2).
    assert.deepEqual(await ann.events.shout.take(), { nr: 2 })
    assert.deepEqual(await bob.events.shout.take(), { nr: 2 })
    await ask("broadcast", { topic: "room:lobby", event: "news", payload: { from: "server" } })
    assert.deepEqual(await ann.events.news.take(), { from: "server" })
    assert.deepEqual(await bob.events.news.take(), { from: "server" })
    await echoes(other, 1)
    assert.deepEqual([other.events.shout.items, other.events.news.items], [[], []])
  },

  async binary() {
    const [one, two] = [await connected(), await connected()]
    // Longer in bytes than in characters: the header of a frame counts bytes.
    const topic = "room:größe"
    const ann = await joined(one, topic, {}, "shout", "pushed_bin", "名前")
    const bob = await joined(two, topic, {}, "shout")
    for(const length of [0, 1, 125, 126, 70_000]){
      assertBytes(await ok(ann.push("echo", bytes(length))), bytes(length))
    }
    const failed = await outcome(ann.push("fail", bytes(9)))
    assert.equal(failed.status, "error")
    assertBytes(failed.response, bytes(9))
    await ok(ann.push("shout", bytes(300, 7)))
    assertBytes(await ann.events.shout.take(), bytes(300, 7))
    assertBytes(await bob.events.shout.take(), bytes(300, 7))
    assert.deepEqual(await ok(ann.push("push_me_binary", { n: 2, size: 5 })), {})
    assertBytes(await ann.events.pushed_bin.take(), Uint8Array.of(1, 1, 1, 1, 1).buffer)
    assertBytes(await ann.events.pushed_bin.take(), Uint8Array.of(2, 2, 2, 2, 2).buffer)
    await ok(ann.push("push_me_binary", { n: 1, size: 1, event: "名前" }))
    assertBytes(await ann.events["名前"].take(), Uint8Array.of(1).buffer)
    await echoes(ann, "text as well")
  },

  async crash() {
    const socket = await connected()
    const room = await joined(socket, "room:lobby", {}, "news")
    const other = await joined(socket, "room:other", {})
    // Three crashes: by a push, by the server, and by an event that no clause handles.
    const crashes = [
      () => room.push("crash", {}),
      () => ask("crash", { topic: "room:lobby" }),
      () => room.push("no such event", {}),
    ]
    for(const crash of crashes){
      const before = room.joinRef()
      await crash()
      await room.errors.take()
      assert.equal((await room.joins.take()).topic, "room:lobby")
      assert.notEqual(room.joinRef(), before)
      assert.equal(await ask("joined", { topic: "room:lobby" }), 1)
      await echoes(room, "again")
    }
    await ask("broadcast", { topic: "room:lobby", event: "news", payload: {} })
    await room.events.news.take()
    await echoes(room, "the end")
    assert.deepEqual(room.events.news.items, [], "it is joined once")
    await echoes(other, "not touched")
    assert.deepEqual(other.errors.items, [])
    assert.deepEqual(socket.closed.items, [])
  },

  async presence() {
    const [one, two] = [await connected(), await connected()]
    const topic = "presence:lobby"
    const list = presence =>
      Object.fromEntries(presence.list((key, { metas }) => [key, metas.map(it => it.state)]))
    const watched = (socket, key) => {
      const channel = newChannel(socket, topic, { key, meta: { state: "new" } })
      const presence = new Presence(channel)
      const calls = []
      presence.onJoin((key, before) => calls.push(`${before ? "again" : "join"} ${key}`))
      presence.onLeave((key, now) => calls.push(`${now.metas.length ? "part" : "leave"} ${key}`))
      channel.join().receive("ok", response => channel.joins.put(response))
      const lists = expected => until(JSON.stringify(expected), () => {
        try { assert.deepEqual(list(presence), expected) } catch { return false }
        return true
      })
      return { channel, presence, calls, lists }
    }
    const ann = watched(one, "ann")
    await ann.lists({ ann: ["new"] })
    const bob = watched(two, "bob")
    await ann.lists({ ann: ["new"], bob: ["new"] })
    await bob.lists({ ann: ["new"], bob: ["new"] })

    const ref = ann.presence.state.bob.metas[0].phx_ref
    await ok(bob.channel.push("update", { meta: { state: "busy" } }))
    await ann.lists({ ann: ["new"], bob: ["busy"] })
    assert.equal(ann.presence.state.bob.metas[0].phx_ref_prev, ref)

    // A second device of bob.
    await ok(ann.channel.push("track_extra", { key: "bob", meta: { state: "phone" } }))
    await ann.lists({ ann: ["new"], bob: ["busy", "phone"] })
    await bob.lists({ ann: ["new"], bob: ["busy", "phone"] })
    const state = await ok(bob.channel.push("list", {}))
    assert.deepEqual(Object.keys(state).sort(), ["ann", "bob"])

    ann.calls.length = 0
    await ok(bob.channel.push("untrack", {}))
    await ann.lists({ ann: ["new"], bob: ["phone"] })
    assert.deepEqual(ann.calls, ["part bob"])

    // A presence that leaves during a gap is gone after it.
    bob.calls.length = 0
    await disconnected(two)
    ann.channel.leave()
    await until("both are gone", async () => await ask("joined", { topic }) === 0)
    two.connect()
    await bob.lists({ bob: ["new"] })
    assert(bob.calls.includes("leave ann"), String(bob.calls))
  },

  async heartbeat() {
    // The Rust side configures the server to close a socket that is silent for an hour.
    const silent = await connected({ heartbeatIntervalMs: 10 * HOUR })
    const alive = await connected({ heartbeatIntervalMs: 20 })
    // The client uses the interval as its heartbeat timeout too, which is too short for a busy machine.
    alive.heartbeatTimeout = () => {}
    let beats = 0
    alive.onMessage(({ topic, event, payload }) => {
      if(topic !== "phoenix"){ return }
      assert.deepEqual([event, payload], ["phx_reply", { status: "ok", response: {} }])
      beats += 1
    })
    // From now on the server receives nothing from one client and heartbeats from the other. Of the three
    // heartbeats that are counted, only the first can have been sent before `now`, and the third is sent more
    // than 1 ms after it.
    const now = await ask("now")
    beats = 0
    await until("three heartbeats", () => beats >= 3)
    await reach(now + 1, HOUR)
    assert.equal((await silent.closed.take()).code, 1002)
    await until("twenty heartbeats", () => beats >= 20)
    assert.deepEqual(alive.closed.items, [])
    const rtt = await within(new Promise(resolve => assert(alive.ping(resolve))), "a pong")
    assert(rtt >= 0)
  },

  async leave() {
    const socket = await connected()
    const room = await joined(socket, "room:lobby", {})
    const other = await joined(socket, "room:other", {})
    const frames = new Queue("a frame of room:lobby")
    socket.onMessage(frame => { if(frame.topic === "room:lobby"){ frames.put(frame) } })
    const joinRef = room.joinRef()
    const leaving = room.leave()
    await room.closes.take()
    // The client considers a leave done when it is sent, so the server's frames are checked here.
    const { event, ref, payload } = await frames.take()
    assert.deepEqual(
      { event, ref, payload },
      { event: "phx_reply", ref: leaving.ref, payload: { status: "ok", response: {} } })
    const close = await frames.take()
    assert.deepEqual([close.event, close.join_ref], ["phx_close", joinRef])
    assert.equal(await ask("joined", { topic: "room:lobby" }), 0)
    await joined(socket, "room:lobby", { again: true })
    assert.equal(await ask("joined", { topic: "room:lobby" }), 1)
    await echoes(other, 1)

    // A second join of a topic makes the client leave it and join again at once.
    const second = await joined(socket, "room:other", { second: true })
    await other.closes.take()
    await echoes(second, 2)
    assert.equal(await ask("joined", { topic: "room:other" }), 1)

    // A leave before the join is answered.
    const hasty = newChannel(socket, "room:hasty", {})
    hasty.join()
    hasty.leave()
    await hasty.closes.take()
    // The reply to a later push: the server has read both.
    await echoes(second, 3)
    await until("it is left", async () => await ask("joined", { topic: "room:hasty" }) === 0)
  },

  async closes() {
    const socket = await connected()
    const other = await joined(socket, "room:other", {})
    for(const event of ["stop", "stop_reply"]){
      const room = await joined(socket, "room:lobby", {})
      const push = room.push(event, {})
      if(event === "stop_reply"){ assert.deepEqual(await ok(push), { bye: true }) }
      await room.closes.take()
      assert.deepEqual(room.errors.items, [])
      // The client does not join again by itself, which would take 20 ms. This timer starts later and
      // takes longer, so the echo after it would be sent after that join.
      await pause(40)
      await echoes(other, event)
      assert.deepEqual(room.joins.items, [])
      assert.equal(await ask("joined", { topic: "room:lobby" }), 0)
    }
    await echoes(other, 1)
    assert.deepEqual(socket.closed.items, [])
  },

  async reconnects() {
    const socket = await connected({ params: { user_id: "ann" } })
    const room = await joined(socket, "room:lobby", { nr: 1 })
    const other = await joined(socket, "room:other", { nr: 2 })
    const ends = {
      "its connection was cut": () => room.push("kill_transport", {}),
      "the server died": () => ask("kill"),
      "the server stopped": () => ask("shutdown"),
      "its id was disconnected": () => room.push("kick", { user_id: "ann" }),
    }
    for(const [what, end] of Object.entries(ends)){
      await end()
      await socket.closed.take()
      for(const channel of [room, other]){ await channel.errors.take() }
      // The client keeps the push, and sends it when the channel is joined again.
      const kept = outcome(room.push("echo", { kept: what }))
      if(what.startsWith("the server")){ await ask("restart") }
      await socket.opened.take()
      assert.deepEqual(await room.joins.take(), { topic: "room:lobby", params: { nr: 1 } })
      assert.deepEqual(await other.joins.take(), { topic: "room:other", params: { nr: 2 } })
      assert.deepEqual(await kept, { status: "ok", response: { kept: what } })
      await echoes(other, what)
      assert.equal(await ask("joined", { topic: "room:lobby" }), 1)
      // Discards failed attempts from the time when the server was down.
      socket.closed.items.length = 0
      for(const channel of [room, other]){ channel.errors.items.length = 0 }
    }
  },

  async disconnects() {
    const socket = await connected()
    const room = await joined(socket, "room:lobby", {})
    await disconnected(socket)
    assert.equal(socket.connectionState(), "closed")
    await until("the server noticed", async () => await ask("peers") === 0)
    assert.equal(await ask("joined", { topic: "room:lobby" }), 0)
    socket.connect()
    await socket.opened.take()
    await room.joins.take()
    await echoes(room, "again")
    assert.equal(await ask("joined", { topic: "room:lobby" }), 1)
  },

  async refused() {
    const refused = newSocket({ params: { reject: "yes" }, reconnectAfterMs: () => 600_000 })
    const error = new Queue("an error")
    refused.onError(event => error.put(event))
    refused.connect()
    assert.match((await error.take()).message, /403/)
    assert.equal((await refused.closed.take()).code, 1006)
    await disconnected(refused)
  },

  async token() {
    // Its base64 has a plus, and padding, which the client removes. It has no slash, which JavaScript's
    // WebSocket refuses in a subprotocol.
    const authToken = "secret~>~>"
    assert.equal(btoa(authToken), "c2VjcmV0fj5+Pg==")
    const socket = await connected({ authToken })
    const room = await joined(socket, "room:lobby", {})
    const { auth_token } = await ok(room.push("whoami", {}))
    assert.equal(auth_token, authToken)
  },
}

const run = scenarios[scenario]
assert(run, `no such scenario: ${scenario}`)
try {
  await run()
} catch(error) {
  console.error(error)
  process.exitCode = 1
}
// The client's timers and sockets would keep the process alive.
process.stdout.write(`${JSON.stringify({ ask: "end" })}\n`, () => process.exit())
