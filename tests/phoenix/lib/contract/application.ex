defmodule Contract.Application do
  @moduledoc false
  use Application

  @impl true
  def start(_type, _args) do
    children = [
      {Phoenix.PubSub, name: Contract.PubSub},
      Contract.Presence,
      Contract.Ring,
      Contract.Endpoint
    ]

    Supervisor.start_link(children, strategy: :one_for_one, name: Contract.Supervisor)
  end
end
