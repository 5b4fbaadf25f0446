defmodule Contract.Endpoint do
  @moduledoc false
  use Phoenix.Endpoint, otp_app: :contract

  # Phoenix 1.7 ignores the option auth_token.
  socket "/socket", Contract.UserSocket,
    websocket: [
      timeout: 60_000,
      compress: true,
      connect_info: [:peer_data, :x_headers],
      error_handler: {Contract.UserSocket, :handle_error, []}
    ],
    longpoll: [window_ms: 10_000, connect_info: [:peer_data, :x_headers]],
    auth_token: true

  plug :not_found

  defp not_found(conn, _opts), do: Plug.Conn.send_resp(conn, 404, "Not Found")
end

defmodule Contract.ErrorJSON do
  @moduledoc false
  def render(template, _assigns) do
    %{errors: %{detail: Phoenix.Controller.status_message_from_template(template)}}
  end
end

defmodule Contract.Presence do
  @moduledoc false
  use Phoenix.Presence, otp_app: :contract, pubsub_server: Contract.PubSub
end
