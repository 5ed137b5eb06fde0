"""The work on images, from brief to signed asset. Knows neither Prefect nor the catalog."""
