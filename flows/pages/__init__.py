"""What runs show: the documents that they report, their pages in the Prefect UI, each name's overview."""
