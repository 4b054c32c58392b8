-- Sends the request bodies of a file in turn, one per line; prints the result as one line of JSON.
local bodies, position = {}, 0

function init(args)
  wrk.headers["Content-Type"] = "application/json"
  for line in io.lines(args[1]) do
    bodies[#bodies + 1] = wrk.format("POST", nil, nil, line)
  end
end

function request()
  position = position % #bodies + 1
  return bodies[position]
end

function done(summary, latency, _)
  local errors = summary.errors
  io.write(string.format(
    'DONE {"requests": %d, "seconds": %.6f, "p50_ms": %.3f, "p99_ms": %.3f, "status": %d, "socket": %d, "timeout": %d}\n',
    summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
    errors.status, errors.connect + errors.read + errors.write, errors.timeout))
end
