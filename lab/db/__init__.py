"""The database: SQLAlchemy tables and the queries on them. Rows become plain values here and nowhere else."""
