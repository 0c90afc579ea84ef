#!/bin/sh
# Make a cluster where there is none, then become the server.
set -eu
as_postgres="setpriv --reuid=postgres --regid=postgres --init-groups --"

if [ ! -s "$PGDATA/PG_VERSION" ]; then
  chown postgres:postgres "$PGDATA"
  chmod 700 "$PGDATA"
  password=$(mktemp)
  printf '%s' "$POSTGRES_PASSWORD" > "$password"
  chown postgres "$password"
  $as_postgres initdb --pgdata "$PGDATA" --username postgres --pwfile "$password" \
    --auth-host scram-sha-256 --auth-local trust --encoding UTF8 --data-checksums \
    --locale C --locale-provider builtin --builtin-locale C.UTF-8
  rm "$password"
  echo 'host all all all scram-sha-256' >> "$PGDATA/pg_hba.conf"
fi

# shellcheck disable=SC2086
exec $as_postgres "$@"
