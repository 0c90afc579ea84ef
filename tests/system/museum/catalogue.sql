CREATE TABLE items (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  store text NOT NULL CHECK (store IN ('photos', 'letters')),
  title text NOT NULL,
  path text NOT NULL UNIQUE,
  sha256 text NOT NULL,
  bytes bigint NOT NULL,
  added_at timestamptz NOT NULL DEFAULT now()
);
