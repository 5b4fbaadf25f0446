import Config

config :contract, Contract.Endpoint,
  adapter: Bandit.PhoenixAdapter,
  http: [ip: {127, 0, 0, 1}, port: String.to_integer(System.get_env("PORT", "4000"))],
  server: true,
  # The key is not secret, because the server has no sessions.
  secret_key_base: String.duplicate("contract", 8),
  pubsub_server: Contract.PubSub,
  check_origin: ["//localhost", "//127.0.0.1"],
  render_errors: [formats: [json: Contract.ErrorJSON], layout: false]

config :phoenix, :json_library, Jason

# The scenarios crash channels on purpose.
config :logger, level: :critical
