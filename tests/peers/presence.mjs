// The official client's Presence over stdin and stdout: one case per line, one answer per line.
//
// A case is a list of steps:
//   {"joined": true}      the channel was joined (again): its joinRef changes
//   {"drop_held": true}   drop the diffs that wait for a state
//   {"state": {...}}      a presence_state
//   {"diff": {...}}       a presence_diff
// The answer has one entry per step: the callbacks that it made, the list, and whether a state is awaited.

import { createInterface } from "node:readline"
import { Presence } from "phoenix"

// The part of a channel that a Presence uses.
class ChannelStub {
  handlers = new Map()
  joins = 0
  on(event, handler) { this.handlers.set(event, handler) }
  joinRef() { return String(this.joins) }
  receive(event, payload) { this.handlers.get(event)(payload) }
}

// A deep copy, because the client changes a callback's arguments later.
const frozen = value => JSON.parse(JSON.stringify(value))

function run(steps) {
  const channel = new ChannelStub()
  const presence = new Presence(channel)
  let calls = []
  presence.onJoin((key, current, joined) => {
    calls.push({ join: key, metas: frozen(joined.metas), edge: current === undefined })
  })
  presence.onLeave((key, current, left) => {
    calls.push({ leave: key, metas: frozen(left.metas), edge: current.metas.length === 0 })
  })
  return steps.map(step => {
    calls = []
    if(step.joined){
      channel.joins += 1
    } else if(step.drop_held){
      presence.pendingDiffs = []
    } else if(step.state){
      channel.receive("presence_state", step.state)
    } else {
      channel.receive("presence_diff", step.diff)
    }
    const list = presence.list((key, entry) => [key, frozen(entry)])
    return { calls, list, waiting: presence.inPendingSyncState() }
  })
}

for await (const line of createInterface({ input: process.stdin })){
  process.stdout.write(`${JSON.stringify(run(JSON.parse(line)))}\n`)
}
