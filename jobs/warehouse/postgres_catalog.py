"""What PostgreSQL's catalog says of a table or view besides its rows: who may do what, and what others built on it.

The program makes tables and views anew and puts them in the place of the old ones. What their owner granted, revoked or
added is to be there afterwards as it was before.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from psycopg2 import sql

from jobs.warehouse.declarations import View

# Privilege, the column that it is for or None for all, to whom, and ` WITH GRANT OPTION` or nothing.
Right = tuple[str, str | None, str, str]

RIGHTS = """
SELECT privilege_type, column_name,
  CASE grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(grantee)) END,
  CASE WHEN is_grantable THEN ' WITH GRANT OPTION' ELSE '' END
FROM (
  SELECT relowner, NULL AS column_name, relacl AS acl FROM pg_class WHERE oid = to_regclass(%(name)s)
  UNION ALL
  SELECT relowner, attname, attacl FROM pg_class JOIN pg_attribute ON attrelid = pg_class.oid
  WHERE pg_class.oid = to_regclass(%(name)s) AND NOT attisdropped
) AS lists, aclexplode(acl)
WHERE grantee <> relowner
"""

GRANTEES = """
SELECT pg_class.oid::regclass::text,
  string_agg(DISTINCT CASE grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(grantee)) END, ', ')
FROM pg_class, aclexplode(relacl)
WHERE relnamespace = to_regnamespace(%s) AND relname = ANY(%s::name[]) AND grantee <> relowner
GROUP BY 1
"""

# Views, foreign keys, functions, policies, triggers, indexes, publications and whatever else depends on a table, its
# partitions or its row type, without what is made again with every table: primary and other declared keys, NOT NULL,
# partitions, views.
ADDED = """
WITH parts AS (
  SELECT oid, reltype FROM pg_class WHERE oid = %(table)s::regclass
  UNION
  SELECT oid, reltype FROM pg_class JOIN pg_inherits ON inhrelid = oid
  WHERE inhparent = %(table)s::regclass AND relispartition
)
SELECT pg_describe_object(classid, objid, 0)
FROM pg_depend
WHERE deptype IN ('n', 'a')
  AND (
    refclassid = 'pg_class'::regclass AND refobjid IN (SELECT oid FROM parts)
    OR refclassid = 'pg_type'::regclass AND refobjid IN (
      SELECT pg_type.oid FROM pg_type JOIN parts ON pg_type.oid = reltype OR typelem = reltype
    )
  )
  AND NOT EXISTS (
    SELECT FROM pg_class WHERE classid = 'pg_class'::regclass AND pg_class.oid = objid AND relispartition
  )
  AND NOT EXISTS (
    SELECT FROM pg_constraint
    WHERE classid = 'pg_constraint'::regclass AND pg_constraint.oid = objid
      AND (
        contype IN ('n', 'p') OR conparentid <> 0
        OR conname = ANY(%(keys)s::name[]) AND conrelid IN (
          SELECT oid FROM pg_class
          WHERE relnamespace = to_regnamespace(%(schema)s) AND relname = ANY(%(tables)s::name[])
        )
      )
  )
  AND NOT EXISTS (
    SELECT FROM pg_rewrite JOIN pg_class ON pg_class.oid = ev_class
    WHERE classid = 'pg_rewrite'::regclass AND pg_rewrite.oid = objid AND relkind = 'v'
      AND relnamespace = to_regnamespace(%(schema)s) AND relname = ANY(%(views)s::name[])
  )
UNION
SELECT 'the parent ' || inhparent::regclass FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid
WHERE inhrelid = %(table)s::regclass AND NOT relispartition
UNION
SELECT 'row-level security' FROM pg_class WHERE oid = %(table)s::regclass AND relrowsecurity
UNION
SELECT 'the owner ' || pg_get_userbyid(relowner) FROM pg_class
WHERE oid = %(table)s::regclass AND pg_get_userbyid(relowner) <> current_user
ORDER BY 1
"""


def rights(cursor: Any, name: sql.Identifier) -> list[Right]:
    """What others than the owner may do with a table or view, or with single columns of it."""
    cursor.execute(RIGHTS, {"name": name.as_string(cursor)})
    found: list[Right] = cursor.fetchall()
    return found


def grant(cursor: Any, name: sql.Identifier, granted: Iterable[Right], columns: Iterable[str]) -> None:
    """Grant these rights on a table or view that nobody else has any on. columns: those that it has."""
    there = set(columns)
    for privilege, column, grantee, option in granted:
        if column is None or column in there:
            only = sql.SQL(" ({})").format(sql.Identifier(column)) if column else sql.SQL("")
            cursor.execute(sql.SQL(f"GRANT {privilege}{{}} ON {{}} TO {grantee}{option}").format(only, name))


def view_options(cursor: Any, schema: str) -> dict[str, sql.Composable]:
    """What others set on views of a schema, such as security_invoker, as CREATE VIEW takes it."""
    cursor.execute(
        "SELECT relname, reloptions FROM pg_class WHERE relnamespace = to_regnamespace(%s) AND relkind = 'v' "
        "AND reloptions IS NOT NULL",
        (schema,),
    )
    return {
        name: _with(dict(option.split("=", 1) for option in options)) for name, options in cursor.fetchall()
    }


def _with(options: Mapping[str, str]) -> sql.Composable:
    pairs = (sql.SQL("{} = {}").format(sql.Identifier(n), sql.Literal(v)) for n, v in options.items())
    return sql.SQL(" WITH ({})").format(sql.SQL(", ").join(pairs))


def close(cursor: Any, schema: str, names: Sequence[str]) -> None:
    """Take from new tables and views what default privileges gave to others."""
    cursor.execute(GRANTEES, (schema, list(names)))
    for name, grantees in cursor.fetchall():
        cursor.execute(f"REVOKE ALL ON {name} FROM {grantees}")


def added(
    cursor: Any,
    schema: str,
    name: sql.Identifier,
    tables: Iterable[str] = (),
    keys: Sequence[str] = (),
    views: Iterable[View] = (),
) -> list[str]:
    """What a published table would lose, or be held by, if another one took its place: in PostgreSQL's words.

    tables, keys: the names of all declared tables and of their constraints. views: those that are made again in the
    same transaction.
    """
    cursor.execute(
        ADDED,
        {
            "table": name.as_string(cursor),
            "schema": schema,
            "tables": list(tables),
            "keys": list(keys),
            "views": [view.name for view in views],
        },
    )
    return [text for (text,) in cursor.fetchall()]
