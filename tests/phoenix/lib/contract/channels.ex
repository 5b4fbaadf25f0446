defmodule Contract.RoomChannel do
  @moduledoc false
  use Phoenix.Channel

  @impl true
  def join(_topic, %{"override" => "plain"}, socket), do: {:ok, socket}

  def join(topic, payload, socket) do
    with %{"push_after" => n} <- payload, do: send(self(), {:push_after, n})
    {:ok, %{topic: topic, params: shown(payload)}, socket}
  end

  defp shown({:binary, data}), do: %{binary_bytes: byte_size(data)}
  defp shown(payload), do: payload

  @impl true
  def handle_in("echo", payload, socket), do: {:reply, {:ok, payload}, socket}

  def handle_in("shout", payload, socket) do
    broadcast!(socket, "shout", payload)
    {:reply, :ok, socket}
  end

  def handle_in("shout_from", payload, socket) do
    broadcast_from!(socket, "shout", payload)
    {:noreply, socket}
  end

  def handle_in("ack", _payload, socket), do: {:reply, :ok, socket}
  def handle_in("nack", _payload, socket), do: {:reply, :error, socket}

  def handle_in("fail", {:binary, _} = payload, socket), do: {:reply, {:error, payload}, socket}
  def handle_in("fail", _payload, socket), do: {:reply, {:error, %{reason: "nope"}}, socket}

  def handle_in("odd_status", _payload, socket) do
    {:reply, {:maybe, %{note: "neither ok nor error"}}, socket}
  end

  def handle_in("noreply", _payload, socket), do: {:noreply, socket}

  def handle_in("push_me", %{"n" => n} = payload, socket) do
    push_numbered(socket, Map.get(payload, "event", "pushed"), n)
    {:noreply, socket}
  end

  def handle_in("push_me_binary", %{"n" => n} = payload, socket) do
    event = Map.get(payload, "event", "pushed_bin")
    size = Map.get(payload, "size", 4)
    for i <- 1..n//1, do: push(socket, event, {:binary, :binary.copy(<<i>>, size)})
    {:reply, :ok, socket}
  end

  def handle_in("slow", %{"ms" => ms} = payload, socket) do
    Process.send_after(self(), {:reply_later, socket_ref(socket), payload}, ms)
    {:noreply, socket}
  end

  def handle_in("block", %{"ms" => ms}, socket) do
    Process.sleep(ms)
    {:reply, {:ok, %{blocked: ms}}, socket}
  end

  def handle_in("reply_twice", payload, socket) do
    for nr <- 1..2, do: reply(socket_ref(socket), {:ok, %{nr: nr, p: payload}})
    {:noreply, socket}
  end

  def handle_in("big", %{"bytes" => bytes}, socket) do
    push(socket, "big", %{data: String.duplicate("x", bytes)})
    {:noreply, socket}
  end

  def handle_in("whoami", _payload, socket) do
    %{params: params, info: info} = socket.assigns

    me = %{
      params: params,
      x_headers: Map.new(info[:x_headers] || []),
      auth_token: info[:auth_token],
      has_peer_data: info[:peer_data] != nil,
      transport: socket.transport
    }

    {:reply, {:ok, me}, socket}
  end

  def handle_in("crash", _payload, _socket), do: raise("crash")
  def handle_in("stop", _payload, socket), do: {:stop, :normal, socket}
  def handle_in("stop_shutdown", _payload, socket), do: {:stop, :shutdown, socket}
  def handle_in("leave_me", _payload, socket), do: {:stop, {:shutdown, :left}, socket}
  def handle_in("stop_reply", _payload, socket), do: {:stop, :normal, {:ok, %{bye: true}}, socket}
  def handle_in("stop_error", _payload, socket), do: {:stop, :some_error, socket}

  def handle_in("kill_me", _payload, socket) do
    Process.exit(self(), :kill)
    {:noreply, socket}
  end

  def handle_in("kill_transport", _payload, socket) do
    Process.exit(socket.transport_pid, :kill)
    {:noreply, socket}
  end

  def handle_in("kick", %{"user_id" => user_id}, socket) do
    Contract.Endpoint.broadcast!("user:#{user_id}", "disconnect", %{})
    {:noreply, socket}
  end

  @impl true
  def handle_info({:push_after, n}, socket) do
    push_numbered(socket, "joined_push", n)
    {:noreply, socket}
  end

  def handle_info({:reply_later, ref, payload}, socket) do
    reply(ref, {:ok, payload})
    {:noreply, socket}
  end

  defp push_numbered(socket, event, n) do
    for i <- 1..n//1, do: push(socket, event, %{i: i})
  end
end

defmodule Contract.PresenceChannel do
  @moduledoc false
  use Phoenix.Channel
  alias Contract.Presence

  @impl true
  def join(topic, payload, socket) when is_map(payload) do
    send(self(), {:track, Map.get(payload, "meta", %{})})
    {:ok, %{topic: topic}, assign(socket, :key, Map.get(payload, "key", "anon"))}
  end

  @impl true
  def handle_info({:track, meta}, socket) do
    {:ok, _} = Presence.track(socket, socket.assigns.key, meta)
    push(socket, "presence_state", Presence.list(socket))
    {:noreply, socket}
  end

  @impl true
  def handle_in("update", %{"meta" => meta}, socket) do
    {:ok, _} = Presence.update(socket, socket.assigns.key, meta)
    {:reply, :ok, socket}
  end

  def handle_in("untrack", _payload, socket) do
    :ok = Presence.untrack(socket, socket.assigns.key)
    {:reply, :ok, socket}
  end

  def handle_in("track_extra", %{"key" => key} = payload, socket) do
    {:ok, _} = Presence.track(socket, key, Map.get(payload, "meta", %{}))
    {:reply, :ok, socket}
  end

  def handle_in("list", _payload, socket), do: {:reply, {:ok, Presence.list(socket)}, socket}

  def handle_in("push_state", _payload, socket) do
    push(socket, "presence_state", Presence.list(socket))
    {:reply, :ok, socket}
  end

  def handle_in("crash", _payload, _socket), do: raise("crash")
end

defmodule Contract.SlowJoinChannel do
  @moduledoc false
  use Phoenix.Channel

  @impl true
  def join(topic, %{"ms" => ms}, socket) do
    Process.sleep(ms)
    {:ok, %{topic: topic, slept: ms}, socket}
  end

  @impl true
  def handle_in("echo", payload, socket), do: {:reply, {:ok, payload}, socket}
end

defmodule Contract.DenyChannel do
  @moduledoc false
  use Phoenix.Channel

  @impl true
  def join(_topic, _payload, _socket), do: {:error, %{reason: "unauthorized"}}
end

defmodule Contract.BoomChannel do
  @moduledoc false
  use Phoenix.Channel

  @impl true
  def join(_topic, _payload, _socket), do: raise("boom")
end
