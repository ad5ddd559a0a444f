import { render } from 'preact';
import { Partner } from './app.tsx';
import '../style.css';
import '../parts/form.css';
import './partner.css';

const root = document.getElementById('app');
if (root) render(<Partner />, root);
