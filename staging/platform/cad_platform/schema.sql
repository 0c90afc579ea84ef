CREATE TABLE users (
    id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    email         text NOT NULL UNIQUE,
    name          text NOT NULL,
    password_hash text NOT NULL,
    is_admin      boolean NOT NULL DEFAULT false,
    created_at    timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE projects (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    owner_id   bigint NOT NULL REFERENCES users,
    name       text NOT NULL,
    note       text NOT NULL DEFAULT '',
    created_at timestamptz NOT NULL DEFAULT now()
);

-- The content lies in the file store at `path`; two drawings may share it.
CREATE TABLE drawings (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    owner_id   bigint NOT NULL REFERENCES users,
    project_id bigint REFERENCES projects,
    name       text NOT NULL,
    sha256     text NOT NULL CHECK (sha256 ~ '^[0-9a-f]{64}$'),
    bytes      bigint NOT NULL CHECK (bytes > 0),
    path       text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX drawings_sha256 ON drawings (sha256);

CREATE TABLE drawing_index (
    drawing_id bigint PRIMARY KEY REFERENCES drawings,
    format     text NOT NULL,
    entities   integer NOT NULL,
    layers     text[] NOT NULL,
    words      tsvector NOT NULL,
    indexed_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX drawing_index_words ON drawing_index USING gin (words);

CREATE TABLE ai_results (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    drawing_id bigint NOT NULL REFERENCES drawings,
    model_id   text NOT NULL,
    answer     text NOT NULL,
    score      double precision NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX ai_results_drawing ON ai_results (drawing_id);

-- History of projects: most of the database's bytes.
CREATE TABLE project_revisions (
    id         bigint NOT NULL,
    project_id bigint NOT NULL REFERENCES projects,
    payload    bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);
-- Inside the rows' own pages, and not compressed in vain.
ALTER TABLE project_revisions ALTER COLUMN payload SET STORAGE PLAIN;
