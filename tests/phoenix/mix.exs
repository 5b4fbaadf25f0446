defmodule Contract.MixProject do
  use Mix.Project

  def project do
    [app: :contract, version: "0.1.0", elixir: "~> 1.15", deps: deps()]
  end

  def application do
    [mod: {Contract.Application, []}, extra_applications: [:logger]]
  end

  # The variable PHOENIX sets another version requirement, such as "~> 1.7.0", to run the same
  # channels on an older server.
  defp deps do
    [
      {:phoenix, System.get_env("PHOENIX", "~> 1.8")},
      {:bandit, "~> 1.5"},
      {:jason, "~> 1.4"}
    ]
  end
end
