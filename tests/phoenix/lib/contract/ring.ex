# A channel that a client can catch up on, to be copied. The manual page `catch_up` of phx explains it.

defmodule Contract.Ring do
  @moduledoc "Numbers the messages of each topic and keeps the newest ones. One process writes, so messages are sent in order."
  use GenServer
  alias Phoenix.PubSub

  @size 1_000

  def start_link(_opts), do: GenServer.start_link(__MODULE__, nil, name: __MODULE__)
  def subscribe(topic), do: PubSub.subscribe(Contract.PubSub, "ring of " <> topic)

  def append(topic, event, payload),
    do: GenServer.call(__MODULE__, {:append, topic, event, payload})

  @doc "Every message after `since`; none for a client that has no position yet."
  def replay(topic, since) do
    {forgotten, _, _} = ends(topic)
    later = [{{{topic, :"$1"}, :"$2"}, [{:>, :"$1", since}], [:"$2"]}]
    messages = if since, do: :ets.select(__MODULE__, later), else: []
    # If a message was forgotten meanwhile, the answer may lack it, so the ring is read again.
    case ends(topic) do
      {^forgotten, _, newest} -> %{messages: messages, oldest: forgotten, newest: newest}
      _ -> replay(topic, since)
    end
  end

  # The position of the last message that was forgotten, the number of messages, and the newest position.
  defp ends(topic) do
    case :ets.lookup(__MODULE__, topic) do
      [{_, ends}] ->
        ends

      [] ->
        {:ets.lookup_element(__MODULE__, :start, 2), 0,
         :ets.lookup_element(__MODULE__, :start, 2)}
    end
  end

  # Positions go on after a restart, which forgets every message, because they begin with the clock.
  @impl true
  def init(nil) do
    start = System.os_time(:microsecond)
    :ets.new(__MODULE__, [:named_table, :ordered_set, read_concurrency: true])
    :ets.insert(__MODULE__, {:start, start})
    {:ok, start}
  end

  # The message is stored before it is sent: a client that joins in between finds it in the ring.
  @impl true
  def handle_call({:append, topic, event, payload}, _from, newest) do
    pos = newest + 1
    message = %{event: event, payload: Map.put(payload, "pos", pos)}
    {forgotten, count, _} = ends(topic)
    :ets.insert(__MODULE__, [{{topic, pos}, message}, {topic, {forgotten, count + 1, pos}}])
    if count == @size, do: forget_oldest(topic, forgotten, count, pos)
    PubSub.broadcast!(Contract.PubSub, "ring of " <> topic, {:message, message})
    {:reply, pos, pos}
  end

  # The position changes first: a reader that lacks the message then knows that it was forgotten.
  defp forget_oldest(topic, forgotten, count, newest) do
    {_, oldest} = key = :ets.next(__MODULE__, {topic, forgotten})
    :ets.insert(__MODULE__, {topic, {oldest, count, newest}})
    :ets.delete(__MODULE__, key)
  end
end

defmodule Contract.RingChannel do
  @moduledoc "Replays what a client missed: in the response of the join or, with `replay: events`, in events."
  use Phoenix.Channel
  alias Contract.Ring

  # `join/3` runs before Phoenix subscribes the channel, so the channel subscribes itself before it reads
  # the ring. What arrives in between waits in its mailbox, and the client drops what comes twice.
  @impl true
  def join(topic, params, socket) do
    :ok = Ring.subscribe(topic)
    since = params["since"]

    if params["replay"] == "events" do
      send(self(), {:replay, since})
      {:ok, socket}
    else
      {:ok, Ring.replay(topic, since), socket}
    end
  end

  @impl true
  def handle_info({:message, %{event: event, payload: payload}}, socket) do
    push(socket, event, payload)
    {:noreply, socket}
  end

  def handle_info({:replay, since}, %{topic: topic} = socket) do
    %{messages: messages} = replay = Ring.replay(topic, since)

    for part <- Enum.chunk_every(messages, 10),
        do: push(socket, "missed", %{replay | messages: part})

    push(socket, "caught_up", Map.delete(replay, :messages))
    {:noreply, socket}
  end

  @impl true
  def handle_in("append", payload, socket) do
    {:reply, {:ok, %{pos: Ring.append(socket.topic, "entry", payload)}}, socket}
  end
end
