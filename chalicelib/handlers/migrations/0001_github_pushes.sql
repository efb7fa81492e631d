-- The example's own table: one row per branch, kept by chalicelib/handlers/github_pushes.py.
CREATE TABLE public.github_pushes (
  repository   text        NOT NULL,
  ref          text        NOT NULL,
  pushes       integer     NOT NULL,
  commits      integer     NOT NULL,
  last_pusher  text,
  last_push_at timestamptz NOT NULL,
  CONSTRAINT github_pushes_pkey PRIMARY KEY (repository, ref)
);
