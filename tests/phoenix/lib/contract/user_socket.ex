defmodule Contract.UserSocket do
  @moduledoc false
  use Phoenix.Socket

  channel "room:*", Contract.RoomChannel
  channel "presence:*", Contract.PresenceChannel
  channel "slowjoin:*", Contract.SlowJoinChannel
  channel "ring:*", Contract.RingChannel
  channel "deny:*", Contract.DenyChannel
  channel "boom:*", Contract.BoomChannel

  @impl true
  def connect(%{"reject" => "yes"}, _socket, _info), do: :error
  def connect(%{"reject" => "rate"}, _socket, _info), do: {:error, :rate}
  def connect(%{"reject" => "raise"}, _socket, _info), do: raise("rejected")

  def connect(params, socket, info) do
    with %{"slowconnect" => ms} <- params, do: Process.sleep(String.to_integer(ms))
    {:ok, assign(socket, params: params, info: info)}
  end

  @impl true
  def id(%{assigns: %{params: %{"user_id" => user_id}}}), do: "user:#{user_id}"
  def id(_socket), do: nil

  def handle_error(conn, :rate) do
    conn
    |> Plug.Conn.put_resp_header("retry-after", "1")
    |> Plug.Conn.send_resp(429, "Too many requests")
  end
end
