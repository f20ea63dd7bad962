# Sourced on every node before Ray starts: what Ray and its jobs read of their environment.
# Secrets come from files; none stands here.

checkout=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
export PATH="${LIMA_VENV:-$checkout/.venv}/bin:$PATH"
export PYTHONPATH="$checkout${PYTHONPATH:+:$PYTHONPATH}" # serve and tune are part of the checkout alone

# Whoever talks to this Ray needs the token of ~/.ray/auth_token, the same on every node.
export RAY_AUTH_MODE=token

# HAProxy in the place of Ray's proxy. Where Serve is told no host it opens its port to all, and so asks for keys and
# logins.
RAY_SERVE_HAPROXY_BINARY_PATH=$(python -m serve.haproxy) || return 1
export RAY_SERVE_ENABLE_HA_PROXY=1 RAY_SERVE_HAPROXY_BINARY_PATH

# Bases of the hub are fetched once, to where every node sees them. Its token (`hf auth login`) and the key
# of an endpoint that judges are files.
export HF_HOME="${HF_HOME:-${LIMA_SHARED:-/shared}/huggingface}"
export HF_TOKEN_PATH="${HF_TOKEN_PATH:-$HOME/.cache/huggingface/token}"
export OPENAI_API_KEY_FILE="${OPENAI_API_KEY_FILE:-$HOME/.config/lima_ray/openai_api_key}"
