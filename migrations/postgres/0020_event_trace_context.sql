-- The trace context that every attempt at the event is sent with: traceparent, and after a space tracestate. It goes
-- with the body.
ALTER TABLE payloads ADD COLUMN IF NOT EXISTS trace_context text;
